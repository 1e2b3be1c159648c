// Durable Task Scheduler: a managed backend for Durable Functions, instead of queues and tables in storage.
param name string
param location string
param tags object
param sku string
param ipAllowlist array
param appPrincipalId string
param appClientId string

@description('Of the task hub: the hubName in host.json')
param hubName string = 'PostBusinessHub'

resource scheduler 'Microsoft.DurableTask/schedulers@2025-11-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    ipAllowlist: ipAllowlist
    sku: sku == 'Dedicated' ? {
      name: sku
      capacity: 1
    } : {
      name: sku
    }
  }
}

resource hub 'Microsoft.DurableTask/schedulers/taskHubs@2025-11-01' = {
  parent: scheduler
  name: hubName
}

// Durable Task Data Contributor: the app starts and looks up orchestrations as well as running them, which is more
// than Durable Task Worker allows. On its own task hub only, not on the scheduler.
var dataContributor = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '0ad04412-c4d5-4796-b79c-f76d14c8d402')

resource appUsesHub 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(hub.id, appPrincipalId, dataContributor)
  scope: hub
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: dataContributor
  }
}

output connectionString string = 'Endpoint=${scheduler.properties.endpoint};Authentication=ManagedIdentity;ClientID=${appClientId}'

// Durable Task Scheduler: a managed backend for Durable Functions, instead of queues and tables in storage.
param name string
param location string
param tags tagsType
param sku string
param publicAccess bool

@description('Addresses (CIDR) that may reach the scheduler through its public endpoint, separated by commas')
param ipAllowlist string

param appIdentityName string
param appPrincipalId string
param appClientId string

@description('Of the task hub: the hubName in host.json')
param hubName string = 'PostBusinessHub'

type tagsType = {
  'azd-env-name': string
}

resource scheduler 'Microsoft.DurableTask/schedulers@2026-02-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    ipAllowlist: split(ipAllowlist, ',')
    publicNetworkAccess: publicAccess ? 'Enabled' : 'Disabled'
    sku: sku == 'Dedicated' ? {
      name: sku
      capacity: 1
    } : {
      name: sku
    }
  }
}

resource hub 'Microsoft.DurableTask/schedulers/taskHubs@2026-02-01' = {
  parent: scheduler
  name: hubName
}

// Durable Task Data Contributor: the app starts and looks up orchestrations as well as running them, which is more
// than Durable Task Worker allows. On its own task hub only, not on the scheduler.
var dataContributor = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '0ad04412-c4d5-4796-b79c-f76d14c8d402')

resource appUsesHub 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(hub.id, appIdentityName, dataContributor)
  scope: hub
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: dataContributor
  }
}

output connectionString string = 'Endpoint=${scheduler.properties.endpoint};Authentication=ManagedIdentity;ClientID=${appClientId}'

// A private endpoint for one resource, and the private DNS zone that leads to it.
param location string
param tags tagsType
param vnetId string
param subnetId string

@description('Resource type of what the endpoint leads to, such as Microsoft.Storage/storageAccounts')
param targetType string

@description('Name of what the endpoint leads to, in this resource group')
param targetName string

@description('The sub-resource, such as blob')
param group string

@description('The private DNS zone that Azure prescribes for the sub-resource')
param zone string

type tagsType = {
  'azd-env-name': string
}

resource dns 'Microsoft.Network/privateDnsZones@2024-06-01' = {
  name: zone
  location: 'global'
  tags: tags
}

resource link 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = {
  parent: dns
  name: 'vnet'
  location: 'global'
  tags: tags
  properties: {
    registrationEnabled: false
    virtualNetwork: {
      id: vnetId
    }
  }
}

resource endpoint 'Microsoft.Network/privateEndpoints@2025-05-01' = {
  name: '${targetName}-${group}'
  location: location
  tags: tags
  properties: {
    subnet: {
      id: subnetId
    }
    privateLinkServiceConnections: [
      {
        name: group
        properties: {
          privateLinkServiceId: resourceId(targetType, targetName)
          groupIds: [
            group
          ]
        }
      }
    ]
  }
}

resource zoneGroup 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2025-05-01' = {
  parent: endpoint
  name: 'default'
  dependsOn: [
    link
  ]
  properties: {
    privateDnsZoneConfigs: [
      {
        name: group
        properties: {
          privateDnsZoneId: dns.id
        }
      }
    ]
  }
}

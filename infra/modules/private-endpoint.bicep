// A private endpoint for each target, and the private DNS zone that leads to it.
param location string
param tags object
param vnetId string
param subnetId string

@description('Of each: resourceId, group (the sub-resource), zone (of the private DNS)')
param targets array

resource zones 'Microsoft.Network/privateDnsZones@2020-06-01' = [for target in targets: {
  name: target.zone
  location: 'global'
  tags: tags
}]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2020-06-01' = [for target in targets: {
  name: '${target.zone}/vnet'
  location: 'global'
  tags: tags
  dependsOn: [
    zones
  ]
  properties: {
    registrationEnabled: false
    virtualNetwork: {
      id: vnetId
    }
  }
}]

resource endpoints 'Microsoft.Network/privateEndpoints@2024-01-01' = [for target in targets: {
  name: '${last(split(target.resourceId, '/'))}-${target.group}'
  location: location
  tags: tags
  properties: {
    subnet: {
      id: subnetId
    }
    privateLinkServiceConnections: [
      {
        name: target.group
        properties: {
          privateLinkServiceId: target.resourceId
          groupIds: [
            target.group
          ]
        }
      }
    ]
  }
}]

resource zoneGroups 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-01-01' = [for target in targets: {
  name: '${last(split(target.resourceId, '/'))}-${target.group}/default'
  dependsOn: [
    endpoints
    links
  ]
  properties: {
    privateDnsZoneConfigs: [
      {
        name: target.group
        properties: {
          privateDnsZoneId: resourceId('Microsoft.Network/privateDnsZones', target.zone)
        }
      }
    ]
  }
}]

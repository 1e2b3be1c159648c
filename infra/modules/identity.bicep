// The app's identity. It is user-assigned, so that its roles exist before the app starts for the first time. Their
// assignments are named after it: whoever deletes it by hand deletes them too, before it is made again.
param name string
param location string
param tags tagsType

type tagsType = {
  'azd-env-name': string
}

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: name
  location: location
  tags: tags
}

output id string = identity.id
output clientId string = identity.properties.clientId
output principalId string = identity.properties.principalId

// The vault for what proves the client's identity to the token endpoint, and the app's to who is told of ends. Access is by role, never by access policy.
param name string
param location string
param tags tagsType
param publicAccess bool

@description('Take back the vault of this name that was deleted less than 90 days ago')
param recover bool

param workspaceId string
param appIdentityName string
param appPrincipalId string
param operatorPrincipalId string
param operatorPrincipalType string

@secure()
param clientSecret string

@secure()
param privateKey string

@secure()
param eventsSecret string

type tagsType = {
  'azd-env-name': string
}

var clientSecretName = 'business-api-client-secret'
var privateKeyName = 'business-api-private-key'
var eventsSecretName = 'operations-events-secret'

resource vault 'Microsoft.KeyVault/vaults@2025-05-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    createMode: recover ? 'recover' : 'default'
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 90
    enablePurgeProtection: true
    publicNetworkAccess: publicAccess ? 'Enabled' : 'Disabled'
    networkAcls: {
      bypass: 'AzureServices'
      defaultAction: publicAccess ? 'Allow' : 'Deny'
    }
  }
}

// An empty parameter makes no new version, so that a deployment does not undo a rotation.
resource clientSecretEntry 'Microsoft.KeyVault/vaults/secrets@2025-05-01' = if (!empty(clientSecret)) {
  parent: vault
  name: clientSecretName
  properties: {
    value: clientSecret
    contentType: 'OAuth 2.0 client secret'
  }
}

resource privateKeyEntry 'Microsoft.KeyVault/vaults/secrets@2025-05-01' = if (!empty(privateKey)) {
  parent: vault
  name: privateKeyName
  properties: {
    value: privateKey
    contentType: 'application/x-pem-file'
  }
}

resource eventsSecretEntry 'Microsoft.KeyVault/vaults/secrets@2025-05-01' = if (!empty(eventsSecret)) {
  parent: vault
  name: eventsSecretName
  properties: {
    value: eventsSecret
    contentType: 'Standard Webhooks secret'
  }
}

// Key Vault Secrets User: the platform resolves the app's references in the app's name. It reads, and changes nothing.
var secretsUser = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '4633458b-17de-408a-b874-0445c86b69e6')

// Key Vault Secrets Officer: the operator puts new versions of the secrets here, and gets no role on anything else.
var secretsOfficer = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'b86a8fe4-44ce-4948-aee5-eccb2c155cd7')

resource appReadsSecrets 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, appIdentityName, secretsUser)
  scope: vault
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: secretsUser
  }
}

resource operatorRotatesSecrets 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(operatorPrincipalId)) {
  name: guid(vault.id, operatorPrincipalId, secretsOfficer)
  scope: vault
  properties: {
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
    roleDefinitionId: secretsOfficer
  }
}

// Of this API, all versions that know category groups are previews.
#disable-next-line use-recent-api-versions
resource audit 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'audit'
  scope: vault
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'audit'
        enabled: true
      }
    ]
  }
}

output id string = vault.id

// Without a version, so that a new one is found.
output clientSecretReference string = '@Microsoft.KeyVault(SecretUri=${vault.properties.vaultUri}secrets/${clientSecretName})'
output privateKeyReference string = '@Microsoft.KeyVault(SecretUri=${vault.properties.vaultUri}secrets/${privateKeyName})'
output eventsSecretReference string = '@Microsoft.KeyVault(SecretUri=${vault.properties.vaultUri}secrets/${eventsSecretName})'

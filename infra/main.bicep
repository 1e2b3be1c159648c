// Everything that the app needs on Azure: `azd up`, or `az deployment sub create --template-file infra/main.bicep`.
// A setting of the app that is left empty keeps the default that the code has for it.
targetScope = 'subscription'

@minLength(1)
@maxLength(40)
@description('Name of the azd environment; part of the resource group\'s name and of what makes the other names unique')
param environmentName string

@minLength(1)
@metadata({
  azd: {
    type: 'location'
  }
})
@description('Region; it must offer Flex Consumption')
param location string

// How the app runs

@allowed([
  '3.13'
  '3.14'
])
@description('Version of Python that the app runs on, and that its package was built for')
param pythonVersion string = '3.13'

@allowed([
  512
  2048
  4096
])
@description('Memory of an instance in MB')
param instanceMemoryMB int = 2048

@minValue(1)
@maxValue(1000)
@description('The most instances; with the connections of each, what the Business API has to bear')
param maximumInstanceCount int = 40

@minValue(1)
@maxValue(1000)
@description('Requests that an instance serves at once; left to itself, Flex Consumption gives Python one')
param httpConcurrency int = 32

@minValue(0)
@description('Instances that are always up for HTTP triggers; 0 scales to none')
param alwaysReadyHttp int = 0

@minValue(0)
@description('Instances that are always up for orchestrators and activities; 0 scales to none')
param alwaysReadyDurable int = 0

@description('Spread the always-ready instances over zones: at least two of each kind are up then')
param zoneRedundant bool = false

@allowed([
  'storage'
  'durable-task-scheduler'
])
@description('Where Durable Functions keep their state; dev/durable_backend.py makes host.json agree')
param durableBackend string = 'storage'

@allowed([
  'Consumption'
  'Dedicated'
])
@description('Billing of the Durable Task Scheduler, if that is the backend')
param schedulerSku string = 'Consumption'

@description('Addresses (CIDR) that may reach the Durable Task Scheduler, separated by commas; every call needs a role as well')
param schedulerIpAllowlist string = '0.0.0.0/0'

@allowed([
  'Standard_LRS'
  'Standard_ZRS'
  'Standard_GRS'
  'Standard_GZRS'
])
@description('Redundancy of the storage account. The task hub in it is the only copy of a record under way: a zone may fail')
param storageSku string = 'Standard_ZRS'

@description('Take back the vault that an earlier deployment of this environment left behind; for one deployment only')
param recoverVault bool = false

// Network

@description('Put storage, Key Vault and scheduler behind private endpoints and send what the app sends through a virtual network')
param vnetEnabled bool = false

@description('Let callers reach the app only through a private endpoint; needs vnetEnabled')
param privateInbound bool = false

@description('Send what the app sends through a NAT gateway, from one address that does not change; needs vnetEnabled')
param natGateway bool = false

@description('Address space of the virtual network')
param vnetAddressPrefix string = '10.20.0.0/22'

@description('Of the app; plan 40 addresses for it, however many instances there are')
param appSubnetPrefix string = '10.20.0.0/24'

@description('Of the private endpoints')
param endpointSubnetPrefix string = '10.20.1.0/24'

// People

@description('Object id of the person or group that rotates the secrets in the vault; none if empty')
param operatorPrincipalId string = ''

@allowed([
  'User'
  'Group'
  'ServicePrincipal'
])
@description('What operatorPrincipalId is')
param operatorPrincipalType string = 'User'

@description('Who gets an e-mail when an alert fires; none if empty')
param alertEmail string = ''

@minValue(5)
@description('Minutes after which a record that is still deferred raises an alert')
param deferredAlertMinutes int = 60

@description('Share of the traces that is kept, with the log lines that belong to them: 0.0 to 1.0')
param otelTracesSamplerArg string = '1.0'

// The Business API

@minLength(1)
@description('Of the API: https')
param businessApiBaseUrl string

@allowed([
  ''
  'client_credentials'
  'entra'
])
@description('Where access tokens come from')
param businessApiAuth string = ''

@description('Of the token endpoint; relative to the base URL if not absolute')
param businessApiTokenUrl string = ''

@description('Of the client; with entra, of the managed identity: the app\'s own if empty')
param businessApiClientId string = ''

@allowed([
  ''
  'client_secret_basic'
  'client_secret_post'
  'private_key_jwt'
  'tls_client_auth'
])
@description('How the client proves who it is')
param businessApiAuthMethod string = ''

@secure()
@description('Goes into the vault; if empty, what the vault holds stays')
param businessApiClientSecret string = ''

@description('File with the secret, instead of the vault')
@secure() // it is no secret: the compiler goes by the name
param businessApiClientSecretFile string = ''

@description('true for servers that do not form-decode id and secret')
@secure() // it is no secret: the compiler goes by the name
param businessApiClientSecretRaw string = ''

@secure()
@description('PEM for private_key_jwt. Goes into the vault; if empty, what the vault holds stays')
param businessApiPrivateKey string = ''

@description('File with the private key, instead of the vault')
param businessApiPrivateKeyFile string = ''

@description('Id of the private key, for the header of assertions')
param businessApiKeyId string = ''

@description('RS256, PS256 or ES256')
param businessApiSigningAlgorithm string = ''

@description('Audience of assertions, unless it is the token URL')
param businessApiAssertionAudience string = ''

@description('Sent to the token endpoint; entra needs it')
param businessApiScope string = ''

@description('Sent to the token endpoint')
param businessApiAudience string = ''

@description('Sent to the token endpoint')
param businessApiResource string = ''

@description('More parameters for the token endpoint, as a form: a=1&b=2')
param businessApiTokenParameters string = ''

@description('Seconds, of a token request')
param businessApiTokenTimeout string = ''

@description('PEM of the client\'s certificate, for mutual TLS')
param businessApiCertificateFile string = ''

@description('PEM of the certificate\'s key')
param businessApiCertificateKeyFile string = ''

@description('PEM of the authorities to trust')
param businessApiCaFile string = ''

@description('Seconds')
param businessApiConnectTimeout string = ''

@description('Seconds')
param businessApiReadTimeout string = ''

@description('Seconds')
param businessApiWriteTimeout string = ''

@description('Seconds')
param businessApiPoolTimeout string = ''

@description('Connections to the API, for each worker process')
param businessApiMaxConnections string = ''

@description('Calls a second to the API, for each worker process; empty: what the API is found to take')
param businessApiMaxRate string = ''

// Delivery

@description('Seconds before the second attempt; doubled from attempt to attempt')
param deliveryFirstDelay string = ''

@description('Seconds: the longest delay')
param deliveryMaxDelay string = ''

@description('Seconds: the longest Retry-After of the API that is honoured')
param deliveryMaxRetryAfter string = ''

@description('Seconds after which a record is given up')
param deliveryDeadline string = ''

@description('Records of a batch that are under way at once')
param deliveryParallelism string = ''

@description('Bytes that a batch may take in the task hub; empty: as many as the backend allows')
param batchMaxBytes string = ''

@description('Days after which an operation that has ended is forgotten; 0 for never')
param operationsRetentionDays string = ''

@description('Who is told when an operation ends; nobody if empty')
@secure() // its query may hold a key
param operationsEventsUrl string = ''

@secure()
@description('Signs what is told: whsec_ and base64. Goes into the vault; if empty, what the vault holds stays')
param operationsEventsSecret string = ''

var token = toLower(uniqueString(subscription().id, environmentName, location))
var tags = {
  'azd-env-name': environmentName
}
var appName = 'func-${token}'
var storageName = 'st${token}'
var vaultName = 'kv-${token}'
var identityName = 'id-${token}'
var vnetName = 'vnet-${token}'
var schedulerName = 'dts-${token}'
var onStorage = durableBackend == 'storage'
var reachable = !(vnetEnabled && privateInbound)

// The Durable Task Scheduler takes payloads of up to 1 MB.
var schedulerBatchMaxBytes = '900000'

var businessApiSettings = {
  BUSINESS_API_BASE_URL: businessApiBaseUrl
  BUSINESS_API_AUTH: businessApiAuth
  BUSINESS_API_TOKEN_URL: businessApiTokenUrl
  BUSINESS_API_CLIENT_ID: businessApiAuth == 'entra' && empty(businessApiClientId) ? identity.outputs.clientId : businessApiClientId
  BUSINESS_API_AUTH_METHOD: businessApiAuthMethod
  BUSINESS_API_CLIENT_SECRET: clientSecretNeeded ? vault.outputs.clientSecretReference : ''
  BUSINESS_API_CLIENT_SECRET_FILE: businessApiClientSecretFile
  BUSINESS_API_CLIENT_SECRET_RAW: businessApiClientSecretRaw
  BUSINESS_API_PRIVATE_KEY: privateKeyNeeded ? vault.outputs.privateKeyReference : ''
  BUSINESS_API_PRIVATE_KEY_FILE: businessApiPrivateKeyFile
  BUSINESS_API_KEY_ID: businessApiKeyId
  BUSINESS_API_SIGNING_ALGORITHM: businessApiSigningAlgorithm
  BUSINESS_API_ASSERTION_AUDIENCE: businessApiAssertionAudience
  BUSINESS_API_SCOPE: businessApiScope
  BUSINESS_API_AUDIENCE: businessApiAudience
  BUSINESS_API_RESOURCE: businessApiResource
  BUSINESS_API_TOKEN_PARAMETERS: businessApiTokenParameters
  BUSINESS_API_TOKEN_TIMEOUT: businessApiTokenTimeout
  BUSINESS_API_CERTIFICATE_FILE: businessApiCertificateFile
  BUSINESS_API_CERTIFICATE_KEY_FILE: businessApiCertificateKeyFile
  BUSINESS_API_CA_FILE: businessApiCaFile
  BUSINESS_API_CONNECT_TIMEOUT: businessApiConnectTimeout
  BUSINESS_API_READ_TIMEOUT: businessApiReadTimeout
  BUSINESS_API_WRITE_TIMEOUT: businessApiWriteTimeout
  BUSINESS_API_POOL_TIMEOUT: businessApiPoolTimeout
  BUSINESS_API_MAX_CONNECTIONS: businessApiMaxConnections
  BUSINESS_API_MAX_RATE: businessApiMaxRate
}

var deliverySettings = {
  DELIVERY_FIRST_DELAY: deliveryFirstDelay
  DELIVERY_MAX_DELAY: deliveryMaxDelay
  DELIVERY_MAX_RETRY_AFTER: deliveryMaxRetryAfter
  DELIVERY_DEADLINE: deliveryDeadline
  DELIVERY_PARALLELISM: deliveryParallelism
  BATCH_MAX_BYTES: empty(batchMaxBytes) && !onStorage ? schedulerBatchMaxBytes : batchMaxBytes
  OPERATIONS_RETENTION_DAYS: operationsRetentionDays
  OPERATIONS_EVENTS_URL: operationsEventsUrl
  OPERATIONS_EVENTS_SECRET: empty(operationsEventsUrl) ? '' : vault.outputs.eventsSecretReference
}

// A reference to a secret that nobody has set would be a bad setting: it is there only where the app needs the secret.
var bySecret = contains([
  ''
  'client_secret_basic'
  'client_secret_post'
], businessApiAuthMethod)
var clientSecretNeeded = businessApiAuth != 'entra' && bySecret && empty(businessApiClientSecretFile)
var privateKeyNeeded = businessApiAuth != 'entra' && businessApiAuthMethod == 'private_key_jwt' && empty(businessApiPrivateKeyFile)

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module identity 'modules/identity.bicep' = {
  scope: group
  params: {
    name: identityName
    location: location
    tags: tags
  }
}

module monitoring 'modules/monitoring.bicep' = {
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    appIdentityName: identityName
    appPrincipalId: identity.outputs.principalId
  }
}

module storage 'modules/storage.bicep' = {
  scope: group
  params: {
    name: storageName
    location: location
    tags: tags
    sku: storageSku
    publicAccess: !vnetEnabled
    holdsTaskHub: onStorage
    appIdentityName: identityName
    appPrincipalId: identity.outputs.principalId
  }
}

module vault 'modules/vault.bicep' = {
  scope: group
  params: {
    name: vaultName
    location: location
    tags: tags
    publicAccess: !vnetEnabled
    recover: recoverVault
    workspaceId: monitoring.outputs.workspaceId
    clientSecret: businessApiClientSecret
    privateKey: businessApiPrivateKey
    eventsSecret: operationsEventsSecret
    appIdentityName: identityName
    appPrincipalId: identity.outputs.principalId
    operatorPrincipalId: operatorPrincipalId
    operatorPrincipalType: operatorPrincipalType
  }
}

module scheduler 'modules/scheduler.bicep' = if (!onStorage) {
  scope: group
  params: {
    name: schedulerName
    location: location
    tags: tags
    sku: schedulerSku
    publicAccess: !vnetEnabled
    ipAllowlist: schedulerIpAllowlist
    appIdentityName: identityName
    appPrincipalId: identity.outputs.principalId
    appClientId: identity.outputs.clientId
  }
}

module network 'modules/network.bicep' = if (vnetEnabled) {
  scope: group
  params: {
    name: vnetName
    location: location
    tags: tags
    addressPrefix: vnetAddressPrefix
    appSubnetPrefix: appSubnetPrefix
    endpointSubnetPrefix: endpointSubnetPrefix
    natGateway: natGateway
  }
}

var storageEndpoints = [for part in [
  'blob'
  'queue'
  'table'
]: {
  type: 'Microsoft.Storage/storageAccounts'
  name: storageName
  group: part
  zone: 'privatelink.${part}.${environment().suffixes.storage}'
}]

var vaultEndpoint = {
  type: 'Microsoft.KeyVault/vaults'
  name: vaultName
  group: 'vault'
  zone: 'privatelink.vaultcore.azure.net'
}

var schedulerEndpoint = {
  type: 'Microsoft.DurableTask/schedulers'
  name: schedulerName
  group: 'scheduler'
  zone: 'privatelink.durabletask.io'
}

var backends = concat(storageEndpoints, [
  vaultEndpoint
], onStorage ? [] : [
  schedulerEndpoint
])

module backendEndpoints 'modules/private-endpoint.bicep' = [for backend in backends: if (vnetEnabled) {
  scope: group
  dependsOn: [
    storage
    vault
    scheduler
  ]
  params: {
    location: location
    tags: tags
    vnetId: network.?outputs.vnetId ?? ''
    subnetId: network.?outputs.endpointSubnetId ?? ''
    targetType: backend.type
    targetName: backend.name
    group: backend.group
    zone: backend.zone
  }
}]

module app 'modules/app.bicep' = {
  scope: group
  dependsOn: [
    backendEndpoints // the first start reads storage and vault through them
  ]
  params: {
    name: appName
    planName: 'plan-${token}'
    location: location
    tags: union(tags, {
      'azd-service-name': 'api'
    })
    identityId: identity.outputs.id
    blobEndpoint: storage.outputs.blobEndpoint
    deploymentContainer: storage.outputs.deploymentContainer
    subnetId: network.?outputs.appSubnetId ?? ''
    publicAccess: reachable
    pythonVersion: pythonVersion
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    httpConcurrency: httpConcurrency
    alwaysReadyHttp: alwaysReadyHttp
    alwaysReadyDurable: alwaysReadyDurable
    zoneRedundant: zoneRedundant
  }
}

module settings 'modules/settings.bicep' = {
  scope: group
  dependsOn: [
    app
  ]
  params: {
    appName: appName
    identityClientId: identity.outputs.clientId
    blobEndpoint: storage.outputs.blobEndpoint
    queueEndpoint: storage.outputs.queueEndpoint
    tableEndpoint: storage.outputs.tableEndpoint
    insightsConnectionString: monitoring.outputs.insightsConnectionString
    schedulerConnectionString: scheduler.?outputs.connectionString ?? ''
    tracesSamplerArg: otelTracesSamplerArg
    settings: union(businessApiSettings, deliverySettings)
  }
}

module inboundEndpoint 'modules/private-endpoint.bicep' = if (!reachable) {
  scope: group
  dependsOn: [
    app
  ]
  params: {
    location: location
    tags: tags
    vnetId: network.?outputs.vnetId ?? ''
    subnetId: network.?outputs.endpointSubnetId ?? ''
    targetType: 'Microsoft.Web/sites'
    targetName: appName
    group: 'sites'
    zone: 'privatelink.azurewebsites.net'
  }
}

module alerts 'modules/alerts.bicep' = {
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
    insightsId: monitoring.outputs.insightsId
    appId: app.outputs.id
    appUri: app.outputs.uri
    storageId: storage.outputs.id
    reachable: reachable
    email: alertEmail
    deferredMinutes: deferredAlertMinutes
  }
}

output AZURE_LOCATION string = location
output AZURE_RESOURCE_GROUP string = group.name
output AZURE_KEY_VAULT_NAME string = vaultName
output SERVICE_API_NAME string = appName
output SERVICE_API_URI string = app.outputs.uri
output OUTBOUND_ADDRESS string = network.?outputs.outboundAddress ?? ''

// The app's settings on Azure. What the platform needs stands here; what the code reads comes as a parameter.
param appName string
param identityClientId string
param blobEndpoint string
param queueEndpoint string
param tableEndpoint string
param insightsConnectionString string

@description('Empty if the task hub is in storage')
param schedulerConnectionString string

@description('Share of the traces that is kept, with the log lines that belong to them: 0.0 to 1.0')
param tracesSamplerArg string

@description('The settings that the code reads, by name; secrets are references to the vault')
param settings settingsType

type settingsType = {
  *: string
}

// Flex Consumption takes runtime, processes and build from elsewhere, and refuses the settings that other plans have
// for them.
var platformSettings = {
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: identityClientId
  AzureWebJobsStorage__blobServiceUri: blobEndpoint
  AzureWebJobsStorage__queueServiceUri: queueEndpoint
  AzureWebJobsStorage__tableServiceUri: tableEndpoint
  APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
  // Left to themselves, newer exporters keep five traces a second and drop the log lines of the others: the line that
  // an alert waits for could be among them.
  OTEL_TRACES_SAMPLER: 'microsoft.fixed_percentage'
  OTEL_TRACES_SAMPLER_ARG: tracesSamplerArg
}

var schedulerSettings = empty(schedulerConnectionString) ? {} : {
  DURABLE_TASK_SCHEDULER_CONNECTION_STRING: schedulerConnectionString
}

resource site 'Microsoft.Web/sites@2025-03-01' existing = {
  name: appName
}

resource appSettings 'Microsoft.Web/sites/config@2025-03-01' = {
  parent: site
  name: 'appsettings'
  properties: union(settings, platformSettings, schedulerSettings)
}

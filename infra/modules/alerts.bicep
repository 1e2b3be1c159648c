// What must wake an operator, as queries over the app's log lines and counters. docs/operations.md explains them.
param token string
param location string
param tags tagsType
param workspaceId string
param insightsId string
param appId string
param appUri string
param storageId string

@description('Whether the app can be reached from the internet, where the web test asks from')
param reachable bool

@description('Who gets an e-mail; nobody if empty')
param email string

@description('Minutes after which a record that is still deferred raises an alert')
param deferredMinutes int

type tagsType = {
  'azd-env-name': string
}

// Both a record's line and a batch's say so: «attempt 9 gave_up: …», «round 9, 500 total, 2 gave_up, …».
var gaveUp = '''
AppTraces
| where Message matches regex @"^Operation [\w-]+: (attempt \d+|round \d+,.*? \d+) gave_up"
| extend operation = extract(@"^Operation ([\w-]+): ", 1, Message)
'''

// The last line of an operation tells its state, the first one that is deferred its age.
var deferredTooLong = '''
AppTraces
| where Message matches regex @"^Operation [\w-]+: (attempt|round) \d+"
| extend operation = extract(@"^Operation ([\w-]+): ", 1, Message)
| extend deferred = Message matches regex @"^Operation [\w-]+: (attempt \d+|round \d+,.*? \d+) deferred"
| summarize since = minif(TimeGenerated, deferred), arg_max(TimeGenerated, deferred) by operation
| where deferred and since < ago({0}m)
'''

// Records that wait for a token say so; a token that could not be renewed early, too.
var tokenFailures = '''
AppTraces
| where Message matches regex @"^Operation [\w-]+: (attempt|round) \d+.* UTC: access token: "
    or Message matches regex @"^The token of .* could not be refreshed"
| project TimeGenerated, Message
'''

// The API said yes, and something came with it that is no record: its own, or a gateway's page before it.
var unreadable = '''
AppTraces
| where Message matches regex @"^Attempt \S+: the API said yes, but its answer could not be read: "
| project TimeGenerated, Message
'''

var alerts = [
  {
    name: 'gave-up'
    title: 'Records were given up'
    description: 'Records could not be posted before the deadline. See docs/operations.md, "Records were given up".'
    severity: 1
    frequency: 'PT5M'
    window: 'PT10M'
    query: gaveUp
    above: 0
  }
  {
    name: 'deferred-too-long'
    title: 'Records are deferred for long'
    description: 'Records wait longer than the alert allows. See docs/operations.md, "Records are deferred".'
    severity: 2
    frequency: 'PT15M'
    window: 'P2D'
    query: replace(deferredTooLong, '{0}', string(deferredMinutes))
    above: 0
  }
  {
    name: 'token-failures'
    title: 'Access tokens cannot be had'
    description: 'The token endpoint refuses or does not answer. See docs/operations.md, "When a secret expires".'
    severity: 1
    frequency: 'PT5M'
    window: 'PT15M'
    query: tokenFailures
    above: 2 // one blip is no reason to wake anybody: records wait, and the next fetch mends it
  }
  {
    name: 'unreadable-answers'
    title: 'Answers of the API cannot be read'
    description: 'Records count as posted by answers that nobody could read. See docs/operations.md, "Records with a warning".'
    severity: 2
    frequency: 'PT15M'
    window: 'PT30M'
    query: unreadable
    above: 0
  }
]

// An app that does not start logs nothing that a query could find: these ask the platform.
var metricAlerts = [
  {
    name: 'http-5xx'
    title: 'The app answers with errors'
    description: 'Callers got errors of the app, or of the API behind it. See docs/operations.md, "The app answers with errors".'
    severity: 2
    scope: appId
    metricNamespace: 'Microsoft.Web/sites'
    metricName: 'Http5xx'
    aggregation: 'Total'
    operator: 'GreaterThan'
    threshold: 10
  }
  {
    name: 'storage'
    title: 'The storage account fails'
    description: 'The task hub cannot be reached. See docs/operations.md, "The storage account fails".'
    severity: 1
    scope: storageId
    metricNamespace: 'Microsoft.Storage/storageAccounts'
    metricName: 'Availability'
    aggregation: 'Average'
    operator: 'LessThan'
    threshold: 99
  }
]

resource operators 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(email)) {
  name: 'ag-${token}'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'operators'
    emailReceivers: [
      {
        name: 'operators'
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

resource rules 'Microsoft.Insights/scheduledQueryRules@2026-03-01' = [for alert in alerts: {
  name: 'alert-${alert.name}-${token}'
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: alert.title
    description: alert.description
    severity: alert.severity
    enabled: true
    scopes: [
      workspaceId
    ]
    evaluationFrequency: alert.frequency
    windowSize: alert.window
    autoMitigate: true
    skipQueryValidation: true // the tables appear with the first line that the app logs
    criteria: {
      allOf: [
        {
          query: alert.query
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: alert.above
          failingPeriods: {
            numberOfEvaluationPeriods: 1
            minFailingPeriodsToAlert: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: empty(email) ? [] : [
        operators.id
      ]
    }
  }
}]

resource metrics 'Microsoft.Insights/metricAlerts@2026-01-01' = [for alert in metricAlerts: {
  name: 'alert-${alert.name}-${token}'
  location: 'global'
  tags: tags
  properties: {
    description: alert.description
    severity: alert.severity
    enabled: true
    scopes: [
      alert.scope
    ]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: alert.name
          metricNamespace: alert.metricNamespace
          metricName: alert.metricName
          timeAggregation: alert.aggregation
          operator: alert.operator
          threshold: alert.threshold
          skipMetricValidation: true // a metric exists once it has a value
        }
      ]
    }
    actions: empty(email) ? [] : [
      {
        actionGroupId: operators.id
      }
    ]
  }
}]

resource ping 'Microsoft.Insights/webtests@2022-06-15' = if (reachable) {
  name: 'ping-${token}'
  location: location
  kind: 'standard'
  tags: union(tags, {
    'hidden-link:${insightsId}': 'Resource'
  })
  properties: {
    SyntheticMonitorId: 'ping-${token}'
    Name: 'ping-${token}'
    Description: 'Whether the Functions host is up: it answers without a key.'
    Kind: 'standard'
    Enabled: true
    Frequency: 300
    Timeout: 60
    RetryEnabled: true
    Locations: [
      {
        Id: 'emea-nl-ams-azr'
      }
      {
        Id: 'us-va-ash-azr'
      }
      {
        Id: 'apac-sg-sin-azr'
      }
    ]
    Request: {
      HttpVerb: 'GET'
      RequestUrl: '${appUri}/admin/host/ping'
    }
    ValidationRules: {
      ExpectedHttpStatusCode: 200
      SSLCheck: true
      SSLCertRemainingLifetimeCheck: 7
    }
  }
}

resource unreachable 'Microsoft.Insights/metricAlerts@2026-01-01' = if (reachable) {
  name: 'alert-ping-${token}'
  location: 'global'
  tags: union(tags, {
    'hidden-link:${insightsId}': 'Resource'
    'hidden-link:${ping.id}': 'Resource'
  })
  properties: {
    description: 'The Functions host does not answer. See docs/operations.md, "The app does not answer".'
    severity: 1
    enabled: true
    scopes: [
      ping.id
      insightsId
    ]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.WebtestLocationAvailabilityCriteria'
      webTestId: ping.id
      componentId: insightsId
      failedLocationCount: 2
    }
    actions: empty(email) ? [] : [
      {
        actionGroupId: operators.id
      }
    ]
  }
}

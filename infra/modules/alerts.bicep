// What must wake an operator, as queries over the app's log lines and counters. docs/operations.md explains them.
param token string
param location string
param tags object
param workspaceId string

@description('Who gets an e-mail; nobody if empty')
param email string

@description('Minutes after which a record that is still deferred raises an alert')
param deferredMinutes int

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

resource rules 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [for alert in alerts: {
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

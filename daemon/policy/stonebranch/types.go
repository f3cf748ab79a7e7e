package stonebranch

// ops is a set of operations (ST6).
type ops uint8

const (
	opCreate ops = 1 << iota
	opRead
	opUpdate
	opDelete
	opExecute
)

const (
	plainOps = opCreate | opRead | opUpdate | opDelete
	allOps   = plainOps | opExecute
)

func opOf(name string) ops {
	switch name {
	case "Create":
		return opCreate
	case "Read":
		return opRead
	case "Update":
		return opUpdate
	case "Delete":
		return opDelete
	case "Execute":
		return opExecute
	}
	return 0
}

// implied adds what the operations imply (ST8).
func (o ops) implied() ops {
	if o&opCreate != 0 {
		o |= opRead | opUpdate
	}
	if o&(opUpdate|opDelete) != 0 {
		o |= opRead
	}
	return o
}

// A kind is one of the types of records (ST7).
type kind uint8

const (
	agent kind = iota
	agentCluster
	application
	bundle
	calendar
	credential
	databaseConnection
	emailConnection
	emailTemplate
	oauthClient
	omsServer
	peopleSoftConnection
	promotionTarget
	sapConnection
	script
	snmpManager
	task
	taskInstance
	trigger
	universalEvent
	variable
	virtualResource
	webhook
	kinds // how many there are
)

// types says of each kind its name, its operations (ST9) and its commands (ST12).
var types = [kinds]struct {
	name     string
	ops      ops
	commands []string
}{
	agent: {"Agent", allOps &^ opCreate, []string{"Suspend Agent", "Resume Agent"}},
	agentCluster: {"Agent Cluster", plainOps, []string{"Suspend Agent Cluster", "Resume Agent Cluster",
		"Suspend Agent Cluster Membership", "Resume Agent Cluster Membership", "Resolve Agent Cluster"}},
	application:          {"Application", plainOps, []string{"Start", "Stop", "Query"}},
	bundle:               {"Bundle", plainOps, []string{"Promote Bundle"}},
	calendar:             {"Calendar", plainOps, []string{"Copy Calendar"}},
	credential:           {"Credential", allOps, nil},
	databaseConnection:   {"Database Connection", allOps, []string{"Copy Database Connection", "Test Connection"}},
	emailConnection:      {"Email Connection", allOps, []string{"Copy Email Connection", "Test Connection"}},
	emailTemplate:        {"Email Template", plainOps, []string{"Copy Email Template"}},
	oauthClient:          {"OAuth Client", plainOps, nil},
	omsServer:            {"OMS Server", plainOps, []string{"Suspend", "Resume"}},
	peopleSoftConnection: {"PeopleSoft Connection", allOps, []string{"Copy PeopleSoft Connection"}},
	promotionTarget:      {"Promotion Target", allOps, []string{"Refresh Target Agents"}},
	sapConnection:        {"SAP Connection", allOps, []string{"Copy SAP Connection"}},
	script:               {"Script", allOps, []string{"Copy Script"}},
	snmpManager:          {"SNMP Manager", allOps, []string{"Copy SNMP Manager"}},
	task: {"Task", plainOps, []string{launchTask, "Copy Task", "Recalculate Forecast", "Reset Statistics",
		"Reset z/OS Override Statistics", "Set Execution Restriction"}},
	taskInstance: {"Task Instance", plainOps &^ opCreate, []string{"Cancel", "Clear All Dependencies", "Clear Predecessors",
		"Clear Exclusive", "Clear Resources", "Clear Time Wait/Delay", "Force Finish", "Force Finish/Cancel", "Hold",
		"Insert Task", "Mark as Satisfied", "Re-run", "Release", "Release Recursive", "Retrieve Output",
		"Set Priority Low", "Set Priority Medium", "Set Priority High", "Set Completed", "Set Started", "Skip", "Unskip"}},
	trigger: {"Trigger", plainOps, []string{triggerNow, "Assign Execution User", "Copy Trigger", "Disable Trigger",
		"Enable Trigger", "Recalculate Forecast", "Set Skip Count"}},
	universalEvent:  {"Universal Event", plainOps, nil},
	variable:        {"Variable", plainOps, nil},
	virtualResource: {"Virtual Resource", allOps, []string{"Copy Virtual Resource"}},
	webhook:         {"Webhook", plainOps, []string{"Enable", "Disable", "Assign Execution User"}},
}

const (
	launchTask    = "Launch"
	triggerNow    = "Trigger Now"
	promoteBundle = "Promote Bundle"
	allCommands   = "ALL"
)

func (k kind) String() string { return types[k].name }

func kindOf(name string) (kind, bool) {
	for k := range kinds {
		if types[k].name == name {
			return k, true
		}
	}
	return 0, false
}

// command returns the bit of a command of the kind, 0 when it has none of that name.
func (k kind) command(name string) uint32 {
	for i, c := range types[k].commands {
		if c == name {
			return 1 << i
		}
	}
	return 0
}

// every returns the bits of all commands of the kind.
func (k kind) every() uint32 { return 1<<len(types[k].commands) - 1 }

// isConnection: Execute on these is enforced by a property (ST15b).
func (k kind) isConnection() bool {
	switch k {
	case databaseConnection, emailConnection, peopleSoftConnection, sapConnection, snmpManager:
		return true
	}
	return false
}

// isVisible: everybody reads these unless visibility is restricted (ST15a).
func (k kind) isVisible() bool {
	switch k {
	case agent, agentCluster, calendar, credential, databaseConnection, emailConnection, peopleSoftConnection,
		sapConnection, emailTemplate, omsServer, snmpManager, virtualResource:
		return true
	}
	return false
}

// isBundled: these can go into a bundle, so ops_promotion_admin reads them (ST15f).
func (k kind) isBundled() bool {
	switch k {
	case agentCluster, application, bundle, calendar, credential, databaseConnection, emailConnection,
		peopleSoftConnection, sapConnection, emailTemplate, snmpManager, script, task, trigger, variable,
		virtualResource, webhook:
		return true
	}
	return false
}

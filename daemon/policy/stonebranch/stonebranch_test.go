package stonebranch_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/policytest"
	"batchwarden/daemon/policy/stonebranch"
)

func TestVectors(t *testing.T) {
	policytest.RunShared(t, stonebranch.Model{}, "S")
}

func compile(t testing.TB, members string) *stonebranch.Policy {
	t.Helper()
	p, err := stonebranch.Parse("doc.json", []byte(`{"model":"stonebranch",`+members+`}`))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// alice writes a document in which alice has roles and permissions.
func alice(roles string, permissions ...string) string {
	list, _ := json.Marshal(strings.Fields(roles))
	return `"users":{"alice":{"roles":` + string(list) + `,"permissions":[` + strings.Join(permissions, ",") + `]},"idle":{}}`
}

func perm(kind, name, rest string) string {
	return fmt.Sprintf(`{"type":%q,"name":%q%s}`, kind, name, rest)
}

func ops(list string) string {
	names, _ := json.Marshal(strings.Split(list, ","))
	return `,"operations":` + string(names)
}

func cmds(list string) string {
	names, _ := json.Marshal(strings.Split(list, ","))
	return `,"commands":` + string(names)
}

func services(criterion, list string) string {
	names, _ := json.Marshal(strings.Fields(list))
	return fmt.Sprintf(`,"business_services":{"criterion":%q,"services":%s}`, criterion, names)
}

// ask writes alice's request about a record.
func ask(action, kind, name, more string) string {
	return fmt.Sprintf(`{"subject":{"user":"alice"},"action":%q,"object":{"type":%q,"name":%q%s}}`, action, kind, name, more)
}

// does writes alice's request with an object of its own.
func does(action, object string) string {
	return fmt.Sprintf(`{"subject":{"user":"alice"},"action":%q,"object":{%s}}`, action, object)
}

const closed = `"properties":{"business_service_visibility_restricted":true,"strict_connection_execute_constraints":true,` +
	`"strict_report_create_constraints":true,"strict_dashboard_create_constraints":true,` +
	`"promotion_read_permission_required":true,"enhanced_variable_security":true},`

// TestRules has the allow and the deny side of every rule.
func TestRules(t *testing.T) {
	all := alice("", perm("Task", "T*", cmds("Launch")), perm("Agent", "A", ops("Execute")), perm("Credential", "C", ops("Execute")),
		perm("Script", "S", ops("Execute")), perm("Virtual Resource", "V", ops("Execute")), perm("SAP Connection", "P", ops("Execute")),
		perm("Trigger", "TR", cmds("Trigger Now")), perm("Variable", "open*", ops("Read")))
	launch := func(more string) string { return does("launch", `"task":{"name":"T1"}`+more) }
	group := func(roles, permissions string) string {
		return `"users":{"alice":{"groups":["G"]}},"groups":{"G":{"roles":[` + roles + `],"permissions":[` + permissions + `]}}`
	}
	act := func(user, by string) string {
		return fmt.Sprintf(`{"subject":{"user":%q,"by":%q},"action":"Read","object":{"type":"Task","name":"x"}}`, user, by)
	}
	const people = `"users":{"bob":{"permissions":[{"type":"Task","operations":["Read"]}]},"imp":{"roles":["ops_user_admin"]},` +
		`"root":{"roles":["ops_admin"]},"none":{}}`
	for _, tc := range []struct{ name, doc, request, want string }{
		{"ST1/every role", closed + alice("ops_admin"), does("role:ops_sap_admin", ""), "allow ST2"},
		{"ST1/every operation", closed + alice("ops_admin"), ask("Delete", "Task", "x", ""), "allow ST1"},
		{"ST1/by a group", closed + group(`"ops_admin"`, ""), ask("Execute", "Agent", "x", ""), "allow ST1"},
		{"ST1/nobody else", closed + alice("ops_user_admin ops_promotion_admin"), ask("Delete", "Task", "x", ""), "deny ST6"},

		{"ST2/jcl", closed + alice("ops_jcl_edit"), does("role:ops_jcl_view", ""), "allow ST2"},
		{"ST2/not backwards", closed + alice("ops_jcl_view"), does("role:ops_jcl_edit", ""), "deny ST2"},
		{"ST2/promotion", closed + alice("ops_promotion_admin"), does("role:ops_promotion_accept_bundle", ""), "allow ST2"},
		{"ST2/report", closed + alice("ops_report_admin"), does("role:ops_dashboard_global", ""), "allow ST2"},
		{"ST2/siblings", closed + alice("ops_report_global"), does("role:ops_report_group", ""), "deny ST2"},
		{"ST2/webhook", closed + alice("ops_webhook_admin"), does("role:ops_webhook_view", ""), "allow ST2"},
		{"ST2/templates", closed + alice("ops_universal_template_admin"), does("role:ops_universal_event_template_view", ""), "deny ST2"},
		{"ST2/not ops_admin", closed + alice("ops_user_admin"), does("role:ops_admin", ""), "deny ST2"},

		{"ST3/unknown role asked for", closed + alice("ops_admin"), does("role:ops_root", ""), "deny ST3"},
		{"ST3/known", closed + alice("ops_widget_admin"), does("role:ops_widget_admin", ""), "allow ST2"},

		{"ST4/dba", closed + alice("ops_dba"), ask("Execute", "Database Connection", "x", ""), "allow ST4"},
		{"ST4/dba, a command", closed + alice("ops_dba"), ask("command:Test Connection", "Database Connection", "x", ""), "allow ST4"},
		{"ST4/another type", closed + alice("ops_dba"), ask("Execute", "Email Connection", "x", ""), "deny ST6"},
		{"ST4/webhook view reads", closed + alice("ops_webhook_view"), ask("Read", "Webhook", "x", ""), "allow ST4"},
		{"ST4/webhook view updates", closed + alice("ops_webhook_view"), ask("Update", "Webhook", "x", ""), "deny ST6"},
		{"ST4/webhook admin", closed + alice("ops_webhook_admin"), ask("command:Enable", "Webhook", "x", ""), "allow ST4"},
		{"ST4/promotion target", closed + alice("ops_promotion_admin"), ask("Execute", "Promotion Target", "x", ""), "allow ST4"},
		{"ST4/agents have no role", closed + alice("ops_agent_cluster_admin"), ask("Read", "Agent", "x", ""), "deny ST6"},

		{"ST5/may", people, act("bob", "imp"), "allow ST6"},
		{"ST5/may not", people, act("bob", "none"), "deny ST5"},
		{"ST5/rights of the impersonated alone", people, act("none", "root"), "deny ST6"},
		{"ST5/not ops_admin", people, act("root", "imp"), "deny ST5"},
		{"ST5/ops_admin by ops_admin", `"users":{"root":{"roles":["ops_admin"]},"r2":{"roles":["ops_admin"]}}`, act("root", "r2"), "allow ST1"},
		{"ST5/oneself", people, act("bob", "bob"), "allow ST6"},
		{"ST5/unknown actor", people, act("bob", "who"), "deny ST25"},
		{"ST5/impersonate", closed + `"users":{"alice":{"roles":["ops_user_impersonate"]},"b":{}}`, does("impersonate", `"user":"b"`), "allow ST5"},
		{"ST5/impersonate without the role", closed + `"users":{"alice":{},"b":{}}`, does("impersonate", `"user":"b"`), "deny ST5"},
		{"ST5/impersonate ops_admin", closed + `"users":{"alice":{"roles":["ops_user_admin"]},"b":{"roles":["ops_admin"]}}`, does("impersonate", `"user":"b"`), "deny ST5"},
		{"ST5/impersonate a stranger", closed + alice("ops_admin"), does("impersonate", `"user":"b"`), "deny ST25"},

		{"ST6/user and groups add up", closed + group("", perm("Task", "x", ops("Read"))), ask("Read", "Task", "x", ""), "allow ST6"},
		{"ST6/matched as a whole", closed + alice("", perm("Task", "x", ops("Delete")), perm("Task", "y", ops("Update"))), ask("Update", "Task", "x", ""), "deny ST6"},
		{"ST6/no services given is any", closed + alice("", perm("Task", "x", ops("Read"))), ask("Read", "Task", "x", `,"services":["FIN"]`), "allow ST6"},
		{"ST7/its type", closed + alice("", perm("Task Instance", "*", ops("Read"))), ask("Read", "Task Instance", "x", ""), "allow ST6"},
		{"ST7/another type", closed + alice("", perm("Task", "*", ops("Read"))), ask("Read", "Task Instance", "x", ""), "deny ST6"},
		{"ST7/unknown type", closed + alice("ops_admin"), ask("Read", "Job", "x", ""), "deny ST7"},
		{"ST8/Create implies Update", closed + alice("", perm("Task", "*", ops("Create"))), ask("Update", "Task", "x", ""), "allow ST6"},
		{"ST8/Delete implies Read", closed + alice("", perm("Task", "*", ops("Delete"))), ask("Read", "Task", "x", ""), "allow ST6"},
		{"ST8/Update does not imply Create", closed + alice("", perm("Task", "*", ops("Update"))), ask("Create", "Task", "x", ""), "deny ST6"},
		{"ST8/Execute implies nothing", closed + alice("", perm("Agent", "*", ops("Execute"))), ask("Read", "Agent", "x", ""), "deny ST6"},
		{"ST9/nobody creates agents", closed + alice("ops_admin"), ask("Create", "Agent", "x", ""), "deny ST9"},
		{"ST9/nobody executes tasks", closed + alice("ops_admin"), ask("Execute", "Task", "x", ""), "deny ST9"},
		{"ST9/nobody executes an OAuth client", closed + alice("ops_oauth_admin"), ask("Execute", "OAuth Client", "x", ""), "deny ST9"},
		{"ST9/what exists", closed + alice("ops_admin"), ask("Execute", "Promotion Target", "x", ""), "allow ST1"},
		{"ST10/glob", closed + alice("", perm("Task", "P?Y*", ops("Read"))), ask("Read", "Task", "PAY_1", ""), "allow ST6"},
		{"ST10/letters count", closed + alice("", perm("Task", "pay", ops("Read"))), ask("Read", "Task", "PAY", ""), "deny ST6"},
		{"ST10/an empty name is *", closed + alice("", perm("Task", "", ops("Read"))), ask("Read", "Task", "PAY", ""), "allow ST6"},
		{"ST10/users too", closed + alice("ops_admin"), `{"subject":{"user":"Alice"},"action":"Read","object":{"type":"Task"}}`, "deny ST25"},

		{"ST11/specific, member", closed + alice("", perm("Task", "*", services("specific", "FIN")+ops("Read"))), ask("Read", "Task", "x", `,"services":["HR","FIN"]`), "allow ST6"},
		{"ST11/specific, unassigned", closed + alice("", perm("Task", "*", services("specific", "FIN")+ops("Read"))), ask("Read", "Task", "x", ""), "deny ST6"},
		{"ST11/specific_or_unassigned", closed + alice("", perm("Task", "*", services("specific_or_unassigned", "FIN")+ops("Read"))), ask("Read", "Task", "x", ""), "allow ST6"},
		{"ST11/specific_or_unassigned, other", closed + alice("", perm("Task", "*", services("specific_or_unassigned", "FIN")+ops("Read"))), ask("Read", "Task", "x", `,"services":["HR"]`), "deny ST6"},
		{"ST11/unassigned", closed + alice("", perm("Task", "*", services("unassigned", "")+ops("Read"))), ask("Read", "Task", "x", `,"services":["HR"]`), "deny ST6"},
		{"ST11/not_specific_or_unassigned", closed + alice("", perm("Task", "*", services("not_specific_or_unassigned", "FIN")+ops("Read"))), ask("Read", "Task", "x", ""), "allow ST6"},
		{"ST11/not_specific", closed + alice("", perm("Task", "*", services("not_specific", "FIN")+ops("Read"))), ask("Read", "Task", "x", `,"services":["HR"]`), "allow ST6"},
		{"ST11/not_specific, unassigned", closed + alice("", perm("Task", "*", services("not_specific", "FIN")+ops("Read"))), ask("Read", "Task", "x", ""), "deny ST6"},
		{"ST11/letters count", closed + alice("", perm("Task", "*", services("specific", "fin")+ops("Read"))), ask("Read", "Task", "x", `,"services":["FIN"]`), "deny ST6"},

		{"ST12/command", closed + alice("", perm("OMS Server", "*", cmds("Suspend"))), ask("command:Suspend", "OMS Server", "x", ""), "allow ST6"},
		{"ST12/another command", closed + alice("", perm("OMS Server", "*", cmds("Suspend"))), ask("command:Resume", "OMS Server", "x", ""), "deny ST6"},
		{"ST12/ALL", closed + alice("", perm("Webhook", "*", cmds("ALL"))), ask("command:Assign Execution User", "Webhook", "x", ""), "allow ST6"},
		{"ST12/ALL is no operation", closed + alice("", perm("Webhook", "*", cmds("ALL"))), ask("Read", "Webhook", "x", ""), "deny ST6"},
		{"ST12/no such command, ops_admin", closed + alice("ops_admin"), ask("command:Suspend", "Task", "x", ""), "deny ST12"},
		{"ST12/ALL cannot be asked for", closed + alice("ops_admin"), ask("command:ALL", "Task", "x", ""), "deny ST12"},
		{"ST12/names with a slash", closed + alice("", perm("Task Instance", "*", cmds("Force Finish/Cancel"))), ask("command:Force Finish/Cancel", "Task Instance", "x", ""), "allow ST6"},

		{"ST13/the grandparent grants", closed + alice("", perm("Task Instance", "W", cmds("Hold"))), ask("command:Hold", "Task Instance", "t", `,"parents":[{"name":"S"},{"name":"W"}]`), "allow ST13"},
		{"ST13/with its own services", closed + alice("", perm("Task Instance", "W", services("specific", "FIN")+cmds("Hold"))), ask("command:Hold", "Task Instance", "t", `,"services":["FIN"],"parents":[{"name":"W"}]`), "deny ST6"},
		{"ST13/with its own services, granted", closed + alice("", perm("Task Instance", "W", services("specific", "FIN")+cmds("Hold"))), ask("command:Hold", "Task Instance", "t", `,"parents":[{"name":"W","services":["FIN"]}]`), "allow ST13"},
		{"ST13/operations do not climb", closed + alice("", perm("Task Instance", "W", ops("Update"))), ask("Update", "Task Instance", "t", `,"parents":[{"name":"W"}]`), "deny ST6"},
		{"ST13/tasks do not climb", closed + alice("", perm("Task", "W", cmds("Launch"))), ask("command:Launch", "Task", "t", `,"parents":[{"name":"W"}]`), "deny ST6"},

		{"ST15a/open", alice(""), ask("Read", "Virtual Resource", "x", ""), "allow ST15a"},
		{"ST15a/not the other types", alice(""), ask("Read", "Task", "x", ""), "deny ST6"},
		{"ST15a/only Read", alice(""), ask("Update", "Calendar", "x", ""), "deny ST6"},
		{"ST15a/restricted", closed + alice(""), ask("Read", "Calendar", "x", ""), "deny ST6"},
		{"ST15b/not enforced", alice(""), ask("Execute", "SNMP Manager", "x", ""), "allow ST15b"},
		{"ST15b/enforced", closed + alice(""), ask("Execute", "SNMP Manager", "x", ""), "deny ST6"},
		{"ST15b/Credential always", alice(""), ask("Execute", "Credential", "x", ""), "deny ST6"},
		{"ST15c/own", `"properties":{"audit_owner_read_permitted":true},` + alice(""), does("read_audit", `"owner":"alice"`), "allow ST15c"},
		{"ST15c/another's", `"properties":{"audit_owner_read_permitted":true},` + alice(""), does("read_audit", `"owner":"bob"`), "deny ST15c"},
		{"ST15c/own, not permitted", alice(""), does("read_audit", `"owner":"alice"`), "deny ST15c"},
		{"ST15c/ops_audit_view", alice("ops_audit_view"), does("read_audit", `"owner":"bob"`), "allow ST15c"},
		{"ST15d/everybody", alice(""), does("create_report", ""), "allow ST15d"},
		{"ST15d/strict", closed + alice("ops_report_publish"), does("create_report", ""), "deny ST15d"},
		{"ST15d/strict, ops_report_group", closed + alice("ops_report_group"), does("create_report", ""), "allow ST15d"},
		{"ST15e/everybody", alice(""), does("create_dashboard", ""), "allow ST15e"},
		{"ST15e/strict", closed + alice("ops_report_group"), does("create_dashboard", ""), "deny ST15e"},
		{"ST15e/strict, ops_report_admin", closed + alice("ops_report_admin"), does("create_dashboard", ""), "allow ST15e"},
		{"ST15f/reads definitions", `"properties":{"business_service_visibility_restricted":true},` + alice("ops_promotion_admin"), ask("Read", "Webhook", "x", ""), "allow ST15f"},
		{"ST15f/not what cannot be bundled", `"properties":{"business_service_visibility_restricted":true},` + alice("ops_promotion_admin"), ask("Read", "OAuth Client", "x", ""), "deny ST6"},
		{"ST15f/required", closed + alice("ops_promotion_admin"), ask("Read", "Webhook", "x", ""), "deny ST6"},
		{"ST15f/only Read", alice("ops_promotion_admin"), ask("Update", "Webhook", "x", ""), "deny ST6"},
		{"ST15g/open", alice(""), ask("Delete", "Variable", "x", ""), "allow ST15g"},
		{"ST15g/enhanced", closed + alice(""), ask("Read", "Variable", "x", ""), "deny ST6"},

		{"ST16/everything", closed + all, launch(`,"agent":{"name":"A"},"credential":{"name":"C"},"scripts":[{"name":"S"}],"virtual_resources":[{"name":"V"}],"connections":[{"type":"SAP Connection","name":"P"}]`), "allow ST16"},
		{"ST16/task", closed + all, does("launch", `"task":{"name":"X"}`), "deny ST16"},
		{"ST16/trigger instead", closed + all, does("launch", `"trigger":{"name":"TR"},"task":{"name":"X"}`), "allow ST16"},
		{"ST16/trigger not granted", closed + all, does("launch", `"trigger":{"name":"X"},"task":{"name":"T1"}`), "deny ST16"},
		{"ST16/agent", closed + all, launch(`,"agent":{"name":"B"}`), "deny ST16"},
		{"ST16/script", closed + all, launch(`,"scripts":[{"name":"S"},{"name":"X"}]`), "deny ST16"},
		{"ST16/connection", closed + all, launch(`,"connections":[{"type":"SAP Connection","name":"Q"}]`), "deny ST16"},
		{"ST16/connection while not strict", all, launch(`,"connections":[{"type":"SAP Connection","name":"Q"}]`), "allow ST16"},
		{"ST16/what is no connection", all, launch(`,"connections":[{"type":"Agent","name":"A"}]`), "deny ST16"},
		{"ST17/virtual resource", closed + all, launch(`,"virtual_resources":[{"name":"W"}]`), "deny ST16"},
		{"ST17/no failure to start", closed + all, launch(`,"virtual_resources":[{"name":"V"}]`), "allow ST16"},
		{"ST18/the credential that is used", closed + all, launch(`,"credential":{"name":"D"}`), "deny ST16"},
		{"ST18/the credential that is used, granted", closed + all, launch(`,"credential":{"name":"C"}`), "allow ST16"},
		{"ST18/none: the agent's own account", closed + all, launch(""), "allow ST16"},

		{"ST20/ops_promotion_admin reads", closed + alice("ops_promotion_admin"), ask("Read", "Variable", "x", ""), "allow ST20"},
		{"ST20/ops_promotion_admin does not update", closed + alice("ops_promotion_admin"), ask("Update", "Variable", "x", ""), "deny ST6"},
		{"ST20/assigned", closed + alice("", perm("Variable", "x", ops("Create"))), ask("Update", "Variable", "x", ""), "allow ST6"},
		{"ST21/Update", closed + alice("", perm("Virtual Resource", "*", ops("Update"))), ask("Update", "Virtual Resource", "x", ""), "allow ST6"},
		{"ST21/ops_promotion_admin only reads", alice("ops_promotion_admin"), ask("Update", "Virtual Resource", "x", ""), "deny ST6"},
		{"ST22/all three", closed + alice("", perm("Bundle", "B", ops("Read")+cmds("Promote Bundle")), perm("Promotion Target", "X", ops("Execute"))), does("promote", `"bundle":{"name":"B"},"target":{"name":"X"}`), "allow ST22"},
		{"ST22/no Read", closed + alice("", perm("Bundle", "B", cmds("Promote Bundle")), perm("Promotion Target", "X", ops("Execute"))), does("promote", `"bundle":{"name":"B"},"target":{"name":"X"}`), "deny ST22"},
		{"ST22/no command", closed + alice("", perm("Bundle", "B", ops("Read")), perm("Promotion Target", "X", ops("Execute"))), does("promote", `"bundle":{"name":"B"},"target":{"name":"X"}`), "deny ST22"},
		{"ST22/no target", closed + alice("ops_bundle_admin"), does("promote", `"bundle":{"name":"B"},"target":{"name":"X"}`), "deny ST22"},
		{"ST22/roles", closed + alice("ops_bundle_admin ops_promotion_admin"), does("promote", `"bundle":{"name":"B"},"target":{"name":"X"}`), "allow ST22"},
		{"ST23/both", closed + alice("", perm("Universal Event", "*", ops("Read")), perm("Agent", "A", ops("Read"))), does("monitor_event", `"event":{"name":"E"},"record":{"type":"Agent","name":"A"}`), "allow ST23"},
		{"ST23/no event", closed + alice("", perm("Agent", "A", ops("Read"))), does("monitor_event", `"event":{"name":"E"},"record":{"type":"Agent","name":"A"}`), "deny ST23"},
		{"ST23/publishing needs Create", closed + alice("", perm("Universal Event", "*", ops("Update"))), ask("Create", "Universal Event", "x", ""), "deny ST6"},
		{"ST24/both roles", closed + alice("ops_imex ops_user_admin"), does("export_group_permissions", ""), "allow ST24"},
		{"ST24/one", closed + alice("ops_user_admin"), does("import_group_permissions", ""), "deny ST24"},
		{"ST24/ops_admin", closed + alice("ops_admin"), does("import_group_permissions", ""), "allow ST24"},
		{"ST25/unknown user, open type", `"users":{}`, ask("Read", "Calendar", "x", ""), "deny ST25"},
		{"ST25/no user", `"users":{}`, `{"subject":{},"action":"create_report","object":{}}`, "deny ST25"},
		{"ST25/known user", alice(""), ask("Read", "Calendar", "x", ""), "allow ST15a"},
		{"ST26/ops_forecast_view", closed + alice("ops_forecast_view"), does("read_forecast", `"task":{"name":"T"}`), "allow ST26"},
		{"ST26/Read on the task", closed + alice("", perm("Task", "T", ops("Read"))), does("read_forecast", `"task":{"name":"T"}`), "allow ST26"},
		{"ST26/neither", closed + alice("", perm("Task", "T", cmds("Launch"))), does("read_forecast", `"task":{"name":"T"}`), "deny ST26"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, r := compile(t, tc.doc), policytest.Request(t, tc.request)
			d := p.Decide(r)
			if got := policytest.Answer(d); got != tc.want {
				t.Errorf("got %s (%s), want %s", got, d.Reason, tc.want)
			}
			if e, trace := p.Explain(r); policytest.Answer(e) != tc.want || !strings.Contains(trace.String(), d.Rule+": ") || (trace.Fix == nil) != d.Allowed {
				t.Errorf("explained: %s\n%s", policytest.Answer(e), trace)
			}
		})
	}
}

func TestInvalidRequests(t *testing.T) {
	p := compile(t, alice("ops_admin"))
	for text, want := range map[string]string{
		does("run", ""):                          "action: is not an action of stonebranch",
		does("Read", ""):                         `object.type: is required for the action "Read"`,
		does("Read", `"type":"Task","host":""`):  `object.host: is not a member for the action "Read"`,
		does("launch", `"agent":{"name":"A"}`):   `object.task: is required for the action "launch"`,
		does("role:ops_dba", `"name":"x"`):       `object.name: is not a member for the action "role:ops_dba"`,
		does("promote", `"bundle":{"name":"B"}`): `object.target: is required for the action "promote"`,
		`{"subject":{"user":"alice","roles":["ops_admin"]},"action":"create_report","object":{}}`: "subject.roles: is not a member for stonebranch",
	} {
		if d := p.Decide(policytest.Request(t, text)); d.Allowed || d.Code != policy.Invalid || d.Reason != want {
			t.Errorf("%s\n got %+v\nwant %s", text, d, want)
		}
	}
}

func TestDescriptions(t *testing.T) { // ST17
	p := compile(t, closed+alice("", perm("Task", "*", cmds("Launch"))))
	for object, want := range map[string]string{
		`"task":{"name":"T"},"virtual_resources":[{"name":"vr"}]`: `Execution for virtual resource "vr" prohibited due to security constraints.`,
		`"task":{"name":"T"},"credential":{"name":"c"}`:           `Execution with credentials "c" prohibited due to security constraints.`,
	} {
		r := policytest.Request(t, does("launch", object))
		if d := p.Decide(r); d.Reason != want {
			t.Errorf("got %s, want %s", d.Reason, want)
		}
		if _, trace := p.Explain(r); !strings.Contains(trace.String(), "Start Failure: "+want) {
			t.Errorf("%s", trace)
		}
	}
}

func TestWithheldVariables(t *testing.T) { // ST20
	p := compile(t, closed+alice("", perm("Task", "*", cmds("Launch")), perm("Variable", "open*", ops("Read"))))
	r := policytest.Request(t, does("launch", `"task":{"name":"T"},"variables":[{"name":"secret"},{"name":"open1"},{"name":"secret"},{"name":"other"}]`))
	d := p.Decide(r)
	if !d.Allowed || !slices.Equal(d.Withheld, []string{"secret", "other"}) {
		t.Errorf("got %+v", d)
	}
	if g, _ := d.Grant(); !slices.Equal(g.Withheld(), d.Withheld) {
		t.Errorf("the grant withholds %q", g.Withheld())
	}
	open := compile(t, alice("", perm("Task", "*", cmds("Launch"))))
	if d := open.Decide(r); !d.Allowed || d.Withheld != nil {
		t.Errorf("without enhanced security (ST15g): %+v", d)
	}
}

// TestExplainManyPermissions: however many there are, the trace has what decided.
func TestExplainManyPermissions(t *testing.T) {
	many := []string{perm("Credential", "x", ops("Execute"))}
	for range 2000 {
		many = append(many, perm("Task", "other", cmds("Launch")))
	}
	_, trace := compile(t, closed+alice("", many...)).Explain(policytest.Request(t, does("launch", `"task":{"name":"T"},"credential":{"name":"x"}`)))
	for _, want := range []string{"1960 more permissions", `Execute on Credential "x" (without a service): granted by ST6`, "denied by ST16", `"commands":["Launch"]`} {
		if !strings.Contains(trace.String(), want) {
			t.Errorf("no %q in the trace", want)
		}
	}
	if trace.More > 0 {
		t.Errorf("%d lines are missing", trace.More)
	}
}

func TestPrivileged(t *testing.T) {
	p := compile(t, `"users":{"a":{"groups":["G"]},"b":{"roles":["ops_user_admin"]}},"groups":{"G":{"roles":["ops_admin"]}}`)
	for _, tc := range []struct {
		subject policy.Subject
		want    []string
	}{
		{policy.Subject{User: "b"}, nil},
		{policy.Subject{User: "x"}, nil},
		{policy.Subject{User: "a"}, []string{"a", "ops_admin"}},
		{policy.Subject{User: "b", By: "a"}, []string{"a"}},
		{policy.Subject{User: "a", By: "a"}, []string{"a", "ops_admin"}},
		{policy.Subject{User: "a", By: "b"}, []string{"a", "ops_admin"}},
	} {
		if got := p.Privileged(tc.subject); !slices.Equal(got, tc.want) {
			t.Errorf("ST1: %+v amounts to %q, want %q", tc.subject, got, tc.want)
		}
	}
}

func TestFillLaunch(t *testing.T) {
	host := policy.Host{Agent: "AGNT0001", AgentServices: []string{"FIN", "HR"}}
	b := policy.BatchUser{Name: "PAY", Services: []string{"FIN"}}
	const filled = `"agent":{"name":"AGNT0001","services":["FIN","HR"]},"credential":{"name":"PAY","services":["FIN"]}`
	for object, want := range map[string]string{
		`{"task":{"name":"T"}}`: `{"task":{"name":"T"},` + filled + `}`,
		`{"agent":{"name":"AGNT0001"},"credential":{"name":"PAY","services":["FIN"]}}`: `{` + filled + `}`,
		`{"agent":{"name":"AGNT0001","services":["HR","FIN"]}}`:                        `{` + filled + `}`,
		`{"agent":{"name":"OTHER"}}`:                                                   "object.agent.name",
		`{"agent":{"name":"AGNT0001","services":["FIN"]}}`:                             "object.agent.services",
		`{"agent":{"name":"AGNT0001","services":["FIN","HR","X"]}}`:                    "object.agent.services",
		`{"credential":{"name":"pay"}}`:                                                "object.credential.name",
		`{"credential":{"name":"PAY","services":["FIN","OPEN"]}}`:                      "object.credential.services",
	} {
		o, err := policy.ParseObject([]byte(object))
		if err != nil {
			t.Fatal(err)
		}
		r := policy.Request{Object: o}
		err = stonebranch.Model{}.FillLaunch(&r, host, b)
		if invalid := (*policy.InvalidError)(nil); errors.As(err, &invalid) {
			if invalid.Field != want {
				t.Errorf("%s: %v, want %s", object, err, want)
			}
			continue
		}
		if got, _ := json.Marshal(r.Object); err != nil || r.Action != "launch" || string(got) != want {
			t.Errorf("%s: got %s %s %v, want %s", object, r.Action, got, err, want)
		}
	}
	r := policy.Request{Action: "Read"}
	if err := (stonebranch.Model{}).FillLaunch(&r, host, b); err == nil {
		t.Error("another action was taken for a launch")
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	p := compile(t, closed+alice("ops_dba", perm("Task", "T*", cmds("Launch")), perm("Agent", "*", services("specific", "FIN")+ops("Execute")), perm("Task Instance", "W", cmds("Hold"))))
	for _, text := range []string{
		does("launch", `"task":{"name":"T"},"agent":{"name":"A","services":["FIN"]}`),
		ask("command:Hold", "Task Instance", "t", `,"parents":[{"name":"S"},{"name":"W"}]`),
		ask("Execute", "Database Connection", "x", ""),
		ask("Read", "Task", "x", ""),
		does("promote", `"bundle":{"name":"B"},"target":{"name":"X"}`),
	} {
		r := policytest.Request(t, text)
		var d policy.Decision
		if n := testing.AllocsPerRun(100, func() { d = p.Decide(r) }); n != 0 {
			t.Errorf("%s: %v allocations (%s)", text, n, d.Reason)
		}
	}
}

func TestHandbookNamesEveryRule(t *testing.T) {
	text, err := os.ReadFile("STONEBRANCH.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range strings.Fields("1 2 3 4 5 6 7 8 9 10 11 12 13 15a 15b 15c 15d 15e 15f 15g 16 17 18 20 21 22 23 24 25 26") {
		if !strings.Contains(string(text), "**ST"+rule+"**") {
			t.Errorf("STONEBRANCH.md does not speak of ST%s", rule)
		}
	}
}

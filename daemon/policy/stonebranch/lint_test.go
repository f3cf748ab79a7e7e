package stonebranch

import (
	"errors"
	"math/bits"
	"os"
	"testing"

	"batchwarden/daemon/policy/policytest"
	"batchwarden/daemon/strict"
)

func TestLint(t *testing.T) {
	const head = "model: stonebranch\nproperties: {business_service_visibility_restricted: true, strict_connection_execute_constraints: true, enhanced_variable_security: true}\n"
	one := func(permissions string) string { return head + "users: {u: {permissions: [" + permissions + "]}}" }
	policytest.Lint(t, Model{}, text(t, "STONEBRANCH.md"), text(t, "testdata/lint/sensible.yaml"), []policytest.Doubt{
		{"permission.empty", "users.u.permissions[0]", one("{type: Task}"), one("{type: Task, operations: [Read]}")},
		{"permission.empty", "users.u.permissions[0].commands", one("{type: Credential, commands: [ALL]}"), one("{type: Credential, operations: [Read], commands: [ALL]}")},
		{"services.ignored", "users.u.permissions[0].business_services", one("{type: Task, operations: [Read], business_services: {criterion: unassigned, services: [F]}}"),
			one("{type: Task, operations: [Read], business_services: {criterion: specific, services: [F]}}")},
		{"permission.open", "users.u.permissions[0]", "model: stonebranch\nusers: {u: {permissions: [{type: Email Connection, operations: [Read, Execute]}]}}",
			"model: stonebranch\nusers: {u: {permissions: [{type: Email Connection, operations: [Read, Execute, Update]}]}}"},
		{"permission.open", "users.u.permissions[0]", "model: stonebranch\nusers: {u: {permissions: [{type: Variable, operations: [Read]}]}}", one("{type: Variable, operations: [Read]}")},
		{"permission.by_role", "users.u.permissions[0]", head + "users: {u: {groups: [G], permissions: [{type: Webhook, operations: [Read]}]}}\ngroups: {G: {roles: [ops_webhook_view]}}",
			head + "users: {u: {groups: [G], permissions: [{type: Webhook, operations: [Update]}]}}\ngroups: {G: {roles: [ops_webhook_view]}}"},
		{"permission.covered", "users.u.permissions[0]", head + "users: {u: {groups: [G], permissions: [{type: Task, name: 'PAY*1', operations: [Read]}]}}\ngroups: {G: {permissions: [{type: Task, name: 'P*', operations: [Update]}]}}",
			head + "users: {u: {groups: [G], permissions: [{type: Task, name: '?AY*1', operations: [Read]}]}}\ngroups: {G: {permissions: [{type: Task, name: 'P*', operations: [Update]}]}}"},
		{"permission.covered", "users.u.permissions[1]", one("{type: Task, operations: [Read]}, {type: Task, operations: [Read]}"), one("{type: Task, operations: [Read]}, {type: Task, commands: [Copy Task]}")},
		{"permission.covered", "users.u.permissions[0]", one("{type: Task, operations: [Read], business_services: {criterion: specific, services: [F]}}, {type: Task, operations: [Read], business_services: {criterion: specific_or_unassigned, services: [F, H]}}"),
			one("{type: Task, operations: [Read], business_services: {criterion: specific, services: [F, G]}}, {type: Task, operations: [Read], business_services: {criterion: specific_or_unassigned, services: [F, H]}}")},
		{"role.contained", "users.u.roles[1]", head + "users: {u: {roles: [ops_user_admin, ops_user_impersonate]}}", head + "users: {u: {roles: [ops_user_admin, ops_imex]}}"},
		{"group.unused", "groups.G", head + "groups: {G: {roles: [ops_dba]}}", head + "users: {u: {groups: [G]}}\ngroups: {G: {roles: [ops_dba]}}"},
		{"group.empty", "groups.G", head + "users: {u: {groups: [G]}}\ngroups: {G: {}}", head + "users: {u: {groups: [G]}}\ngroups: {G: {roles: [ops_dba]}}"},
		{"user.empty", "users.u", head + "users: {u: {groups: [G]}}\ngroups: {G: {}}", head + "users: {u: {groups: [G]}}\ngroups: {G: {roles: [ops_dba]}}"},
		{"user.no_agent", "users.u", one("{type: Task, commands: [ALL]}, {type: Credential, operations: [Execute]}"), one("{type: Task, commands: [ALL]}, {type: Agent, operations: [Execute]}")},
		{"user.no_credential", "users.u", one("{type: Trigger, commands: [Trigger Now]}, {type: Agent, operations: [Execute]}"), head + "users: {u: {roles: [ops_admin], permissions: [{type: Task, commands: [Launch]}]}}"},
	})
}

func TestLintRefuses(t *testing.T) {
	found, err := Model{}.Lint("d", []byte("model: stonebranch\nwat: 1\nusers: {u: {}}\n"))
	if _, are := errors.AsType[strict.Faults](err); !are || found != nil {
		t.Errorf("got %v and %v, want the document's faults alone", found, err)
	}
}

// TestCriterionCovers compares with every record of three services (ST11).
func TestCriterionCovers(t *testing.T) {
	all := []string{"F", "G", "H"}
	set := func(n uint) (s []string) {
		for i, name := range all {
			if n&(1<<i) != 0 {
				s = append(s, name)
			}
		}
		return s
	}
	covered := 0
	for c := range criteria {
		for d := range criteria {
			for with := range uint(8) {
				for its := range uint(8) {
					if c.lists() && with == 0 || d.lists() && its == 0 || bits.OnesCount(with) == 3 || bits.OnesCount(its) == 3 {
						continue // services beyond those listed always exist
					}
					want := true
					for n := range uint(8) {
						want = want && (!d.holds(set(n), set(its)) || c.holds(set(n), set(with)))
					}
					got := c.covers(d, set(with), set(its))
					if got && !want {
						t.Errorf("%s %v covers %s %v: got true", criterionNames[c], set(with), criterionNames[d], set(its))
					}
					if got {
						covered++
					}
				}
			}
		}
	}
	if covered < 100 {
		t.Errorf("%d pairs are covered", covered)
	}
}

func text(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

package opcon_test

import (
	"errors"
	"os"
	"testing"

	"batchwarden/daemon/policy/opcon"
	"batchwarden/daemon/policy/policytest"
	"batchwarden/daemon/strict"
)

func TestLint(t *testing.T) {
	const head = "model: opcon\n"
	policytest.Lint(t, opcon.Model{}, text(t, "OPCON.md"), text(t, "testdata/lint/sensible.yaml"), []policytest.Doubt{
		{"machines.empty", "roles.r.machines", head + "roles: {r: {batch_users: {unix: [u/a]}, machines: []}}", head + "roles: {r: {batch_users: {unix: [u/a]}, machines: [m]}}"},
		{"role.unused", "roles.r", head + "roles: {r: {batch_users: {unix: [u/a]}}, s: {machines: [m]}}\nusers: {u: {roles: [s]}}",
			head + "roles: {r: {batch_users: {unix: [u/a]}}}"}, // no users at all: requests name the roles
		{"role.empty", "roles.r", head + "roles: {r: {}}", head + "roles: {r: {functions: [Other]}}"},
		{"user.empty", "users.u", head + "users: {u: {}}", head + "users: {u: {roles: [Role_ocadm]}}"},
		{"ocadm.restricted", "roles.Role_ocadm", head + "roles: {Role_ocadm: {machines: [m]}}", head + "roles: {Role_ocadm: {}}"},
		{"function.unknown", "roles.r.functions[0]", head + "roles: {r: {functions: [all administrative function]}}", head + "roles: {r: {functions: [AllAdministrativeFunctions, Schedules]}}"},
		{"grant.reserved", "roles.r.batch_users.mcp[0]", head + `roles: {r: {batch_users: {mcp: ["*"]}}}`, head + `roles: {r: {batch_users: {openvms: ["*"]}}}`},
		{"grant.unlisted", "roles.r.batch_users.unix[1]", head + "roles: {r: {batch_users: {unix: [u/a, u/B]}}}\nbatch_users: [{platform: unix, login: u/a}, {platform: unix, login: u/b}]",
			head + "roles: {r: {batch_users: {unix: [u/a], windows: ['D\\x'], ibmi: [Q]}}}\nbatch_users: [{platform: unix, login: u/a}, {platform: windows, login: 'd\\X', password_set: true}]"},
		{"grant.black", "roles.r.batch_users.windows[0]", head + "roles: {r: {batch_users: {windows: ['D\\a']}}}\nhost: {black_list: ['d\\A']}", head + "roles: {r: {batch_users: {unix: [u/a]}}}\nhost: {black_list: [u/A]}"},
		{"grant.not_white", "roles.r.batch_users.unix[1]", head + "roles: {r: {batch_users: {unix: [u/a, u/b]}}}\nhost: {white_list: [u/a]}", head + "roles: {r: {batch_users: {unix: [u/a, u/b]}}}\nhost: {white_list: []}"},
		{"white.black", "host.white_list[0]", head + "host: {white_list: [u/a], black_list: [u/a]}", head + "host: {white_list: [u/a], black_list: [u/b]}"},
		{"host.never", "host.black_list[0]", head + "roles: {r: {batch_users: {unix: [u/a]}}}\nhost: {black_list: [root]}", head + "roles: {r: {batch_users: {unix: [u/a], ibmi: [Q]}}}\nhost: {black_list: [root, u/root]}"},
		{"batch_user.ungranted", "batch_users[1]", head + "roles: {r: {batch_users: {unix: [u/a]}}}\nbatch_users: [{platform: unix, login: u/a}, {platform: unix, login: u/b}]",
			head + "roles: {r: {batch_users: {unix: [u/a]}}}\nusers: {x: {roles: [Role_ocadm]}}\nbatch_users: [{platform: unix, login: u/a}, {platform: unix, login: u/b}]"},
	})
}

func TestLintRefuses(t *testing.T) {
	found, err := opcon.Model{}.Lint("d", []byte("model: opcon\nwat: 1\nusers: {u: {}}\n"))
	if _, are := errors.AsType[strict.Faults](err); !are || found != nil {
		t.Errorf("got %v and %v, want the document's faults alone", found, err)
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

package config

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// credential is an entry for a unit's credentials; change replaces one of its members.
func credential(match, change string) string {
	members := map[string]string{"realms": "[opcon]", "may": "[retrieve]", "subject": "{user: pay}", "batch_users": "[payroll]"}
	if name, value, ok := strings.Cut(change, ": "); ok {
		members[name] = value
	}
	text := "clients: [{name: c, match: {" + match + "}"
	for _, name := range slices.Sorted(maps.Keys(members)) {
		text += ", " + name + ": " + members[name]
	}
	return text + "}]\n"
}

func TestCredential(t *testing.T) {
	const text = least + "systemd_socket: /run/batchwarden/systemd.sock\n"
	c, warnings, err := Check(host(t, text+credential("credential_unit: 'pay@db\\x2d01.service'", "subject: {user: pay, roles: [r], by: op}")))
	if err != nil || len(warnings) > 0 {
		t.Fatal(warnings, err)
	}
	if got, want := c.SystemdSocket, "/run/batchwarden/systemd.sock"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	got := c.CredentialClient(`pay@db\x2d01.service`)
	if got == nil {
		t.Fatal("the entry does not match its unit")
	}
	if want := (&Subject{User: "pay", Roles: []string{"r"}, By: "op"}); !reflect.DeepEqual(got.Subject, want) {
		t.Errorf("got subject %+v, want %+v", got.Subject, want)
	}
	if want := (Subjects{Users: []string{"pay", "op"}, Roles: []string{"r"}}); !reflect.DeepEqual(got.Subjects, want) {
		t.Errorf("got subjects %+v, want those of the fixed one, %+v", got.Subjects, want)
	}
	for _, unit := range []string{"", "pay", "pay.service", "pay@.service"} {
		if e := c.CredentialClient(unit); e != nil {
			t.Errorf("%q matches entry %s", unit, e.Name)
		}
	}
}

func TestCredentialObject(t *testing.T) {
	c, _, err := Check(host(t, least+credential("credential_unit: pay.service", `object: {name: NIGHTLY, "n": [1]}`)))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(c.Clients[0].Object, &got); err != nil || got["name"] != "NIGHTLY" {
		t.Errorf("got object %s, %v", c.Clients[0].Object, err)
	}
	if w := strings.Join(c.Warnings, "\n"); !strings.Contains(w, "client c: it never matches: systemd_socket is empty") {
		t.Errorf("got warnings %q, want one that the socket is missing", w)
	}
}

// TestCredentialFaults has one fault in each document, and wants exactly that one.
func TestCredentialFaults(t *testing.T) {
	const pay = "credential_unit: pay.service"
	const notHere = ": is not for entries that match a credential_unit; remove it"
	for _, c := range []struct{ text, want string }{
		{"systemd_socket: systemd.sock\n", `systemd_socket: "systemd.sock" is not an absolute path`},
		{"systemd_socket: /run/batchwarden/batchwarden.sock\n", "systemd_socket: is another socket's path"},
		{"systemd_socket: /run/batchwarden-launcher/launcher.sock\n", "systemd_socket: is another socket's path"},
		{credential("credential_unit: pay.socket", ""), `clients[0].match.credential_unit: "pay.socket" is not a service`},
		{credential("credential_unit: pay@.service", ""), `clients[0].match.credential_unit: "pay@.service" is a template`},
		{credential("credential_unit: '*.service'", ""), `clients[0].match.credential_unit: "*.service" is not the name of one service`},
		{credential(pay+", user: root", ""), "clients[0].match.user" + notHere},
		{credential(pay+", group: root", ""), "clients[0].match.group" + notHere},
		{credential(pay+", exe: /x", ""), "clients[0].match.exe" + notHere},
		{credential(pay+", sha256: "+strings.Repeat("ab", 32), ""), "clients[0].match.sha256" + notHere},
		{credential(pay+", unit: pay.service", ""), "clients[0].match.unit" + notHere},
		{credential(pay, "rate: 5/s"), "clients[0].rate" + notHere},
		{credential(pay, "concurrent: 5"), "clients[0].concurrent" + notHere},
		{credential(pay, "subject_required: true"), "clients[0].subject_required" + notHere},
		{credential(pay, "subjects: {users: ['*']}"), "clients[0].subjects.users" + notHere},
		{credential(pay, "subjects: {roles: [r]}"), "clients[0].subjects.roles" + notHere},
		{credential(pay, "subject: {}"), "clients[0].subject: is missing; systemd names none"},
		{credential(pay, "subject: {roles: ['r*']}"), `clients[0].subject.roles[0]: "r*" looks like a glob`},
		{credential(pay, "may: []"), "clients[0].may: must be [retrieve]"},
		{credential(pay, "may: [retrieve, launch]"), "clients[0].may: must be [retrieve]"},
		{credential(pay, "realms: []"), "clients[0].realms: is empty"},
		{credential(pay, "realms: [opcon, opcon]"), "clients[0].realms: has 2; an entry"},
		{credential(pay, "batch_users: []"), "clients[0].batch_users: is empty; name those"},
		{credential("credential_unit: "+strings.Repeat("p", 69)+".service", ""), "clients[0].batch_users[0]: is too long for systemd to ask for: it and the unit's name have 84 characters together, at most 83 fit"},
	} {
		t.Run(c.text, func(t *testing.T) {
			_, _, err := Check(host(t, least+c.text))
			if got := only(t, err); !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

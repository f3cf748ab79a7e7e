package stonebranch_test

import (
	"errors"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/policytest"
	"batchwarden/daemon/policy/stonebranch"
)

func TestFaultyDocuments(t *testing.T) {
	one := func(permission string) string { return alice("", permission) }
	for name, tc := range map[string]struct{ doc, want string }{
		"unknown member":          {`"user":{}`, `user: is not known`},
		"unknown property":        {`"properties":{"strict":true}`, `properties.strict: is not known`},
		"property no boolean":     {`"properties":{"enhanced_variable_security":"yes"}`, `must be true or false`},
		"ST3 unknown role":        {alice("ops_admin ops_root"), `users.alice.roles[1]: "ops_root" is not a role`},
		"ST3 role of a group":     {`"groups":{"G":{"roles":["OPS_ADMIN"]}}`, `groups.G.roles[0]: "OPS_ADMIN" is not a role`},
		"ST7 unknown type":        {one(perm("Job", "*", "")), `users.alice.permissions[0].type: "Job" is not a type`},
		"ST7 no type":             {one(`{"name":"x"}`), `users.alice.permissions[0].type: is required`},
		"ST9 Task Instance":       {one(perm("Task Instance", "*", ops("Create"))), `permissions[0].operations[0]: Task Instance has no operation Create`},
		"ST9 Execute on Calendar": {one(perm("Calendar", "*", ops("Read,Execute"))), `permissions[0].operations[1]: Calendar has no operation Execute`},
		"unknown operation":       {one(perm("Task", "*", ops("read"))), `"read" is not one of Create, Read`},
		"ST11 no criterion":       {one(perm("Task", "*", `,"business_services":{}`)), `business_services.criterion: is required`},
		"ST11 unknown criterion":  {one(perm("Task", "*", services("some", "F"))), `"some" is not one of any_or_unassigned`},
		"ST11 no service":         {one(perm("Task", "*", services("not_specific", ""))), `permissions[0].business_services: not_specific needs at least one service`},
		"ST12 unknown command":    {one(perm("Trigger", "*", cmds("Launch"))), `permissions[0].commands[0]: Trigger has no command "Launch"; it has Trigger Now`},
		"ST12 none":               {one(perm("Variable", "*", cmds("Copy"))), `Variable has no command "Copy"; it has none`},
		"ST25 unknown group":      {`"users":{"a":{"groups":["G","H"]}},"groups":{"G":{}}`, `users.a.groups[1]: the document defines no group "H"`},
		"empty user":              {`"users":{"":{}}`, `a name is empty`},
		"format":                  {`"format":-1`, `format: is -1`},
		"groups in groups":        {`"groups":{"G":{"groups":[]}}`, `groups.G.groups: is not known`},
		"null permissions":        {`"users":{"a":{"permissions":null}}`, `users.a.permissions: has no value`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := stonebranch.Parse("d", []byte(`{"model":"stonebranch",`+tc.doc+`}`))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v\nwant %s", err, tc.want)
			}
		})
	}
	for doc, want := range map[string]string{`{}`: `model: is required: "stonebranch"`, `{"model":"opcon"}`: `model: is "opcon", not "stonebranch"`} {
		if _, err := stonebranch.Parse("d", []byte(doc)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

func TestFormatNotesAndYAML(t *testing.T) {
	if _, err := stonebranch.Parse("d", []byte(`{"model":"stonebranch","format":2,"new":1}`)); !errors.Is(err, policy.ErrNewer) {
		t.Errorf("a newer format gives %v", err)
	}
	p, err := stonebranch.Parse("d.yaml", []byte(`
model: stonebranch
x_owner: fin
users:
  alice:
    x_why: {a: 1}
    permissions:
    - {type: Task, name: "P*", commands: [Launch], operations: [Read], business_services: {criterion: specific, services: [FIN], x_: 0}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Decide(policytest.Request(t, ask("command:Launch", "Task", "PAY", `,"services":["FIN"]`))); !d.Allowed {
		t.Errorf("got %+v", d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"model":"stonebranch",`+closed+alice("ops_dba", perm("Task Instance", "a*", services("specific", "F")+ops("Read")+cmds("ALL")))+`}`), "command:Hold", "Task Instance")
	f.Add([]byte("model: stonebranch\nusers: {alice: {roles: [ops_admin]}}\n"), "role:ops_dba", "Task")
	f.Fuzz(func(t *testing.T, doc []byte, action, kind string) {
		if len(doc) > 1<<14 {
			return
		}
		p, err := stonebranch.Parse("d", doc)
		if err != nil {
			return
		}
		r := policy.Request{Subject: policy.Subject{User: "alice"}, Action: action}
		r.Object = policy.Object{Given: policy.MemberType | policy.MemberName, Type: kind, Name: "ab"}
		d := p.Decide(&r)
		if e, trace := p.Explain(&r); d.Allowed != e.Allowed || d.Rule != e.Rule || trace.String() == "" {
			t.Fatalf("%+v, explained %+v", d, e)
		}
	})
}

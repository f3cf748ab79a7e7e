package opcon_test

import (
	"errors"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/opcon"
	"batchwarden/daemon/policy/policytest"
)

func TestFaultyDocuments(t *testing.T) {
	long := strings.Repeat("a", 62)
	for name, tc := range map[string]struct{ doc, want string }{
		"no model":                  {`{}`, `d:1:1: model: is required: "opcon"`},
		"another model":             {`{"model":"automic"}`, `d:1:10: model: is "automic", not "opcon"`},
		"empty model":               {`{"model":""}`, `d:1:10: model: is "", not "opcon"`},
		"unknown member":            {`{"model":"opcon","rolls":{}}`, `d:1:18: rolls: is not known`},
		"unknown deep":              {`{"model":"opcon","roles":{"a":{"denied":[]}}}`, `roles.a.denied: is not known`},
		"wrong type":                {`{"model":"opcon","roles":{"a":{"machines":"db01"}}}`, `roles.a.machines: must be a list, not the text "db01"`},
		"null is not an empty list": {`{"model":"opcon","roles":{"a":{"machines":null}}}`, `roles.a.machines: has no value`},
		"null white list":           {`{"model":"opcon","host":{"white_list":null}}`, `host.white_list: has no value`},
		"trailing":                  {`{"model":"opcon"} x`, `has more text after its end`},
		"twice":                     {`{"model":"opcon","roles":{"a":{},"a":{}}}`, `roles.a: is there twice`},
		"format 0":                  {`{"model":"opcon","format":0}`, `format: is 0`},

		"OC2 platform":            {`{"model":"opcon","roles":{"a":{"batch_users":{"linux":["a/b"]}}}}`, `d:1:55: roles.a.batch_users.linux: "linux" is not one of windows, sql`},
		"OC2 unix":                {`{"model":"opcon","roles":{"a":{"batch_users":{"unix":["a/b","payroll"]}}}}`, `roles.a.batch_users.unix[1]: "payroll" is not group/user`},
		"OC2 unix letters":        {`{"model":"opcon","roles":{"a":{"batch_users":{"unix":["a/b.c"]}}}}`, `unix[0]: "a/b.c" is not group/user`},
		"OC2 unix three":          {`{"model":"opcon","roles":{"a":{"batch_users":{"unix":["a/b/c"]}}}}`, `unix[0]: "a/b/c" is not group/user`},
		"OC2 windows":             {`{"model":"opcon","roles":{"a":{"batch_users":{"windows":["svc"]}}}}`, `windows[0]: "svc" is not DOMAIN\user`},
		"OC2 61 characters":       {`{"model":"opcon","roles":{"a":{"batch_users":{"ibmi":["` + long + `"]}}}}`, `ibmi[0]: has 62 characters, at most 61`},
		"OC2 openvms":             {`{"model":"opcon","batch_users":[{"platform":"openvms","login":"ABCDEFGHIJKLM"}]}`, `batch_users[0].login: "ABCDEFGHIJKLM" has 13 characters, at most 12`},
		"OC2 zos length":          {`{"model":"opcon","batch_users":[{"platform":"zos","login":"ABCDEFGHI"}]}`, `batch_users[0].login: "ABCDEFGHI" has 9 characters, at most 8`},
		"OC2 zos case":            {`{"model":"opcon","batch_users":[{"platform":"zos","login":"Abc"}]}`, `batch_users[0].login: "Abc" is not in upper case`},
		"OC2 password":            {`{"model":"opcon","batch_users":[{"platform":"windows","login":"A\\B"}]}`, `batch_users[0]: "A\\B": a windows batch user needs a password`},
		"OC2 no password":         {`{"model":"opcon","batch_users":[{"platform":"mcp","login":"A","password_set":true}]}`, `batch_users[0].password_set: "A": batch users of mcp have no password`},
		"OC2 entry without login": {`{"model":"opcon","batch_users":[{"platform":"unix"}]}`, `batch_users[0].login: is empty`},
		"OC2 no platform":         {`{"model":"opcon","batch_users":[{"login":"a/b"}]}`, `batch_users[0].platform: is required`},
		"OC2 the same twice":      {`{"model":"opcon","batch_users":[{"platform":"sql","login":"A\\B"},{"platform":"sql","login":"a\\b"}]}`, `batch_users[1]: "a\\b" on sql is there already: batch_users[0]`},
		"OC3 only there":          {`{"model":"opcon","roles":{"a":{"batch_users":{"windows":["*"]}}}}`, `windows[0]: "*" is not DOMAIN\user`},
		"OC14 empty entry":        {`{"model":"opcon","host":{"white_list":[""]}}`, `host.white_list[0]: is empty`},
		"OC14 long entry":         {`{"model":"opcon","host":{"black_list":["a/b","` + long + `"]}}`, `host.black_list[1]: has 62 characters`},
		"OC16 unknown role":       {`{"model":"opcon","users":{"jdoe":{"roles":["Role_ocadm","ops"]}}}`, `users.jdoe.roles[1]: the document defines no role "ops"`},
		"empty user":              {`{"model":"opcon","users":{"":{"roles":["Role_ocadm"]}}}`, `a name is empty`},
		"empty machine":           {`{"model":"opcon","roles":{"a":{"machines":[""]}}}`, `roles.a.machines[0]: a name is empty`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := opcon.Parse("d", []byte(tc.doc))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestAllFaultsAreNamed(t *testing.T) {
	_, err := opcon.Parse("opcon.yaml", []byte(`model: opcon
roles:
  payroll:
    batch_users:
      unix: [users/payroll, root]
      aix: [a/b]
    machine: [db01]
users:
  jdoe: {roles: [payrol]}
host: {black_list: [""]}
`))
	want := `opcon.yaml:5:29: roles.payroll.batch_users.unix[1]: "root" is not group/user (letters, digits, - and _ in both)
opcon.yaml:6:12: roles.payroll.batch_users.aix: "aix" is not one of windows, sql, unix, ibmi, mcp, openvms, zos
opcon.yaml:7:5: roles.payroll.machine: is not known; known here: batch_users, machines, functions
opcon.yaml:9:18: users.jdoe.roles[0]: the document defines no role "payrol"
opcon.yaml:10:21: host.black_list[0]: is empty`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestFormatAndNotes(t *testing.T) {
	if _, err := opcon.Parse("d", []byte(`{"model":"opcon","format":1,"x_owner":"fin","roles":{"a":{"x_why":{"n":[1]}}},"host":{"x_":0}}`)); err != nil {
		t.Errorf("notes that begin with x_ are passed over: %v", err)
	}
	_, err := opcon.Parse("d", []byte(`{"model":"opcon","format":2,"rules":[]}`))
	if !errors.Is(err, policy.ErrNewer) {
		t.Errorf("a newer format gives %v", err)
	}
}

// TestSoundBatchUsers has the allow side of OC1, OC2 and OC3 for documents.
func TestSoundBatchUsers(t *testing.T) {
	p := compile(t, `{"batch_users":[
 {"platform":"windows","login":"corp\\svc","password_set":true},
 {"platform":"windows","login":"USE SERVICE ACCOUNT"},
 {"platform":"sql","login":"CORP\\dba"},
 {"platform":"sql","login":"CORP\\dbb","password_set":true},
 {"platform":"unix","login":"users/pay-roll_1"},
 {"platform":"unix","login":"users/payroll","password_set":true},
 {"platform":"ibmi","login":"*"},
 {"platform":"openvms","login":"ABCDEFGHIJKL"},
 {"platform":"mcp","login":"OPER"},
 {"platform":"zos","login":"BATCH$01"}]}`)
	if p == nil {
		t.Fatal("no policy")
	}
}

func TestYAMLGivesTheSame(t *testing.T) {
	p, err := opcon.Parse("d.yaml", []byte("model: opcon\nroles:\n  ops: {batch_users: {unix: [users/payroll], windows: [CORP\\SVC]}, machines: [db01]}\nusers:\n  jdoe: {roles: [ops]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ request, want string }{
		{req("jdoe", "launch", "unix", "users/payroll", `,"machine":"db01"`), "allow OC5"},
		{req("jdoe", "launch", "windows", `corp\svc`, `,"machine":"db02"`), "deny OC8"},
	} {
		if got := policytest.Answer(p.Decide(policytest.Request(t, tc.request))); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.request, got, tc.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"model":"opcon","roles":{"ops":{"batch_users":{"unix":["a/b"],"windows":["A\\b"]},"machines":["m"],"functions":["f"]}},"users":{"u":{"roles":["ops"]}},"host":{"black_list":["a/b"],"white_list":[]}}`), "u", "a/b")
	f.Add([]byte("model: opcon\nusers: {u: {roles: [Role_ocadm]}}\n"), "u", "x")
	f.Fuzz(func(t *testing.T, doc []byte, user, login string) {
		if len(doc) > 1<<14 {
			return
		}
		p, err := opcon.Parse("d", doc)
		if err != nil {
			return
		}
		for _, action := range []string{"use", "launch", "create"} {
			r := policy.Request{Subject: policy.Subject{User: user}, Action: action}
			r.Object = policy.Object{Given: policy.MemberPlatform | policy.MemberBatchUser, Platform: "windows", BatchUser: login}
			d := p.Decide(&r)
			e, trace := p.Explain(&r)
			if d.Allowed != e.Allowed || d.Rule != e.Rule || trace.String() == "" {
				t.Fatalf("%+v, explained %+v", d, e)
			}
			if d.Allowed && p.Privileged(r.Subject) == nil && d.Rule == "OC6" {
				t.Fatal("not privileged and yet Role_ocadm")
			}
		}
	})
}

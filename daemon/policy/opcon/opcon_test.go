package opcon_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/opcon"
	"batchwarden/daemon/policy/policytest"
)

func TestVectors(t *testing.T) {
	policytest.RunShared(t, opcon.Model{}, "O")
}

// compile parses a document without its model member.
func compile(t testing.TB, doc string) *opcon.Policy {
	t.Helper()
	p, err := opcon.Parse("doc.json", []byte(`{"model":"opcon",`+strings.TrimPrefix(doc, "{")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// req writes a request: "user role role", the action, platform, login and more members.
func req(subject, action, platform, login, more string) string {
	names := strings.Fields(subject)
	s := policy.Subject{}
	for _, n := range names {
		if role, ok := strings.CutPrefix(n, "@"); ok {
			s.Roles = append(s.Roles, role)
		} else {
			s.User = n
		}
	}
	who, _ := json.Marshal(s)
	l, _ := json.Marshal(login)
	return fmt.Sprintf(`{"subject":%s,"action":%q,"object":{"platform":%q,"batch_user":%s%s}}`, who, action, platform, l, more)
}

// TestRules has the allow and the deny side of every rule that the engine decides.
func TestRules(t *testing.T) {
	const (
		ops  = `{"roles":{"ops":{"batch_users":{"unix":["users/payroll"],"windows":["corp\\svc"],"sql":["CORP\\dba"],"zos":["BATCH1"]}}},"users":{"jdoe":{"roles":["ops"]},"adm":{"roles":["Role_ocadm"]},"idle":{}}}`
		keep = `{"roles":{"fn":{"functions":["AllAdministrativeFunctions"]},"fp":{"functions":["Other","AllFunctionPrivileges"]},"no":{"functions":["Other"]}},"users":{"k":{"roles":["fn"]}}}`
		mach = `{"roles":{"a":{"batch_users":{"unix":["users/payroll"]},"machines":["db01"]},"b":{"machines":["db02"]},"none":{"machines":[]},"free":{"batch_users":{"unix":["users/payroll"]}},"Role_ocadm":{"machines":[]}}}`
		host = `{"roles":{"ops":{"batch_users":{"unix":["users/payroll","users/root"],"windows":["CORP\\SVC","CORP\\X"]}}},"host":{"black_list":["users/root","corp\\x"],"white_list":["users/payroll","users/root","corp\\svc","CORP\\X"]}}`
	)
	use := func(s, p, l string) string { return req(s, "use", p, l, "") }
	launch := func(s, p, l, m string) string { return req(s, "launch", p, l, `,"machine":"`+m+`"`) }
	for _, tc := range []struct{ name, doc, request, want string }{
		{"OC2/no such platform", ops, use("adm", "linux", "users/payroll"), "deny OC2"},
		{"OC2/platform in other letters", ops, use("jdoe", "UNIX", "users/payroll"), "deny OC2"},
		{"OC2/created as its platform wants it", keep, req("k", "create", "unix", "users/new", ""), "allow OC4"},
		{"OC2/created otherwise", keep, req("k", "create", "unix", "new", ""), "deny OC2"},
		{"OC2/openvms at most 12", keep, req("k", "create", "openvms", "ABCDEFGHIJKLM", ""), "deny OC2"},
		{"OC2/zos upper case", keep, req("k", "create", "zos", "batch1", ""), "deny OC2"},
		{"OC2/windows has a domain", keep, req("k", "create", "windows", "svc", ""), "deny OC2"},

		{"OC3/use service account", keep, req("k", "delete", "windows", "Use Service Account", ""), "deny OC3"},
		{"OC3/sql too", keep, req("k", "edit", "sql", "use service account", ""), "deny OC3"},
		{"OC3/not on unix", keep, req("k", "edit", "unix", "use service account", ""), "allow OC4"},
		{"OC3/star on mcp", keep, req("k", "edit", "mcp", "*", ""), "deny OC3"},
		{"OC3/star on ibmi, Role_ocadm too", keep, req("@Role_ocadm", "create", "ibmi", "*", ""), "deny OC3"},
		{"OC3/another on ibmi", keep, req("k", "edit", "ibmi", "OPER", ""), "allow OC4"},
		{"OC3/can be granted", `{"roles":{"r":{"batch_users":{"windows":["use service account"],"ibmi":["*"]}}}}`, use("@r", "windows", "USE SERVICE ACCOUNT"), "allow OC5"},
		{"OC3/star is a name and not a wildcard", `{"roles":{"r":{"batch_users":{"ibmi":["*"]}}}}`, use("@r", "ibmi", "OPER"), "deny OC5"},

		{"OC4/AllAdministrativeFunctions", keep, req("@fn", "edit", "unix", "users/a", ""), "allow OC4"},
		{"OC4/AllFunctionPrivileges", keep, req("@fp", "delete", "unix", "users/a", ""), "allow OC4"},
		{"OC4/Role_ocadm", keep, req("@Role_ocadm", "create", "unix", "users/a", ""), "allow OC4"},
		{"OC4/another function", keep, req("@no", "edit", "unix", "users/a", ""), "deny OC4"},
		{"OC4/a grant is not enough", ops, req("jdoe", "edit", "unix", "users/payroll", ""), "deny OC4"},
		{"OC4/keeping is not using", keep, use("k", "unix", "users/a"), "deny OC5"},

		{"OC5/granted", ops, use("jdoe", "unix", "users/payroll"), "allow OC5"},
		{"OC5/not granted", ops, use("jdoe", "unix", "users/other"), "deny OC5"},
		{"OC5/granted on another platform", ops, use("jdoe", "ibmi", "users/payroll"), "deny OC5"},
		{"OC5/roles add up", `{"roles":{"a":{},"b":{"batch_users":{"unix":["g/u"]}}}}`, use("@a @b", "unix", "g/u"), "allow OC5"},
		{"OC5/named and own roles add up", `{"roles":{"a":{},"b":{"batch_users":{"unix":["g/u"]}}},"users":{"u":{"roles":["a"]}}}`, use("u @b", "unix", "g/u"), "allow OC5"},

		{"OC6/everything", ops, use("adm", "openvms", "SYSTEM"), "allow OC6"},
		{"OC6/not restricted by machines", mach, launch("@none @Role_ocadm", "unix", "users/x", "db09"), "allow OC6"},
		{"OC6/bound by the host lists", host, launch("@Role_ocadm", "unix", "users/root", "db01"), "deny OC14"},
		{"OC6/other letters are another role", ops, use("@role_ocadm", "unix", "users/x"), "deny OC16"},

		{"OC7/launch with the grant", ops, launch("jdoe", "unix", "users/payroll", "db01"), "allow OC5"},
		{"OC7/launch after the grant is gone", ops, launch("idle", "unix", "users/payroll", "db01"), "deny OC16"},
		{"OC7/launch of what is not granted", ops, launch("jdoe", "unix", "users/other", "db01"), "deny OC5"},

		{"OC8/listed", mach, launch("@a", "unix", "users/payroll", "db01"), "allow OC5"},
		{"OC8/not listed", mach, launch("@a", "unix", "users/payroll", "db02"), "deny OC8"},
		{"OC8/union of the lists", mach, launch("@a @b", "unix", "users/payroll", "db02"), "allow OC5"},
		{"OC8/a role without a list does not lift it", mach, launch("@a @free", "unix", "users/payroll", "db03"), "deny OC8"},
		{"OC8/no list, no restriction", mach, launch("@free", "unix", "users/payroll", "db03"), "allow OC5"},
		{"OC8/an empty list is no machine", mach, launch("@free @none", "unix", "users/payroll", "db01"), "deny OC8"},
		{"OC8/an empty list adds nothing to others", mach, launch("@a @none", "unix", "users/payroll", "db01"), "allow OC5"},
		{"OC8/machine not named", mach, req("@a", "launch", "unix", "users/payroll", ""), "allow OC5"},
		{"OC8/machine named empty", mach, launch("@a", "unix", "users/payroll", ""), "deny OC8"},
		{"OC8/not for use", mach, req("@a", "use", "unix", "users/payroll", `,"machine":"db02"`), "allow OC5"},

		{"OC9/referred to", keep, req("k", "delete", "unix", "users/a", `,"references":1`), "deny OC9"},
		{"OC9/not referred to", keep, req("k", "delete", "unix", "users/a", `,"references":0`), "allow OC4"},
		{"OC9/editing is not deleting", keep, req("k", "edit", "unix", "users/a", `,"references":3`), "allow OC4"},
		{"OC9/Role_ocadm too", keep, req("@Role_ocadm", "delete", "unix", "users/a", `,"references":3`), "deny OC9"},

		{"OC13/windows in any letters", ops, use("jdoe", "windows", `Corp\Svc`), "allow OC5"},
		{"OC13/sql in any letters", ops, use("jdoe", "sql", `corp\DBA`), "allow OC5"},
		{"OC13/unix as written", ops, use("jdoe", "unix", "users/Payroll"), "deny OC5"},
		{"OC13/zos as written", ops, use("jdoe", "zos", "batch1"), "deny OC5"},
		{"OC13/letters of other alphabets stay other", `{"roles":{"r":{"batch_users":{"windows":["CORP\\ADMIN"]}}}}`, use("@r", "windows", `CORP\adm`+"ı"+`n`), "deny OC5"},
		{"OC13/umlauts fold", `{"roles":{"r":{"batch_users":{"windows":["CORP\\JÖRG"]}}}}`, use("@r", "windows", `corp\jörg`), "allow OC5"},
		{"OC13/role names as written", ops, use("@OPS", "unix", "users/payroll"), "deny OC16"},

		{"OC14/white", host, launch("@ops", "unix", "users/payroll", "m"), "allow OC5"},
		{"OC14/black wins over white", host, launch("@ops", "unix", "users/root", "m"), "deny OC14"},
		{"OC14/black in any letters on windows", host, launch("@ops", "windows", `CORP\x`, "m"), "deny OC14"},
		{"OC14/white in any letters on windows", host, launch("@ops", "windows", `CORP\SVC`, "m"), "allow OC5"},
		{"OC14/not on the white list", host, launch("@Role_ocadm", "unix", "users/other", "m"), "deny OC14"},
		{"OC14/unix as written", host, launch("@Role_ocadm", "unix", "users/Root", "m"), "deny OC14"},
		{"OC14/not for use", host, use("@ops", "unix", "users/root"), "allow OC5"},
		{"OC14/empty lists restrict nobody", ops, launch("jdoe", "unix", "users/payroll", "m"), "allow OC5"},

		{"OC16/unknown user", ops, use("nobody", "unix", "users/payroll"), "deny OC16"},
		{"OC16/no subject", ops, use("", "unix", "users/payroll"), "deny OC16"},
		{"OC16/unknown role named", ops, use("@nothing", "unix", "users/payroll"), "deny OC16"},
		{"OC16/unknown role beside a known one", ops, use("jdoe @nothing", "unix", "users/payroll"), "allow OC5"},
		{"OC16/Role_ocadm needs no definition", `{"users":{"a":{"roles":["Role_ocadm"]}}}`, use("a", "unix", "users/x"), "allow OC6"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, r := compile(t, tc.doc), policytest.Request(t, tc.request)
			d := p.Decide(r)
			if got := policytest.Answer(d); got != tc.want {
				t.Errorf("got %s (%s), want %s", got, d.Reason, tc.want)
			}
			if e, trace := p.Explain(r); policytest.Answer(e) != tc.want || !strings.Contains(trace.String(), d.Rule+": ") {
				t.Errorf("explained: %s\n%s", policytest.Answer(e), trace)
			}
		})
	}
}

// TestExplainManyRoles: however many there are, the trace has what decided.
func TestExplainManyRoles(t *testing.T) {
	roles, names := []string{`"last":{"batch_users":{"unix":["users/payroll"]}}`}, []string{}
	for i := range 1500 {
		roles = append(roles, fmt.Sprintf(`"r%d":{}`, i))
		names = append(names, fmt.Sprintf("r%d", i))
	}
	list, _ := json.Marshal(append(names, "last"))
	p := compile(t, `{"roles":{`+strings.Join(roles, ",")+`},"users":{"u":{"roles":`+string(list)+`}}}`)
	_, trace := p.Explain(policytest.Request(t, req("u", "launch", "unix", "users/payroll", "")))
	for _, want := range []string{`role "last" grants`, "has 1401 more roles", "1401 more roles are not shown", "allowed by OC5"} {
		if !strings.Contains(trace.String(), want) {
			t.Errorf("no %q in the trace", want)
		}
	}
	if trace.More > 0 {
		t.Errorf("%d lines are missing", trace.More)
	}
}

func TestInvalidRequests(t *testing.T) {
	p := compile(t, `{"roles":{}}`)
	for text, want := range map[string]string{
		`{"subject":{},"action":"run","object":{}}`:                                                                           "action: is not one of use, launch, create, edit, delete",
		`{"subject":{},"action":"use","object":{"platform":"unix"}}`:                                                          `object.batch_user: is required for the action "use"`,
		`{"subject":{},"action":"use","object":{"platform":"unix","batch_user":"a/b","host":"x"}}`:                            `object.host: is not a member for the action "use"`,
		`{"subject":{},"action":"launch","object":{"platform":"unix","batch_user":"a/b","task":{"name":"x"}}}`:                `object.task: is not a member for the action "launch"`,
		`{"subject":{"user":"a","by":"b"},"action":"use","object":{"platform":"unix","batch_user":"a/b"}}`:                    "subject.by: is not a member for opcon",
		`{"subject":{"roles":["Role_ocadm"]},"action":"launch","object":{"platform":"unix","batch_user":"a/b","name":"job"}}`: `object.name: is not a member for the action "launch"`,
	} {
		d := p.Decide(policytest.Request(t, text))
		if d.Allowed || d.Code != policy.Invalid || d.Reason != want {
			t.Errorf("%s\n got %+v\nwant %s", text, d, want)
		}
		if e, trace := p.Explain(policytest.Request(t, text)); e.Code != policy.Invalid || !strings.Contains(trace.String(), "not a valid request: "+want) {
			t.Errorf("explained: %s", trace)
		}
	}
}

func TestPrivileged(t *testing.T) {
	p := compile(t, `{"users":{"jdoe":{"roles":["Role_ocadm"]},"bob":{}}}`)
	for _, tc := range []struct {
		subject policy.Subject
		want    []string
	}{
		{policy.Subject{User: "bob"}, nil},
		{policy.Subject{User: "nobody"}, nil},
		{policy.Subject{}, nil},
		{policy.Subject{User: "jdoe"}, []string{"Role_ocadm", "jdoe"}},
		{policy.Subject{User: "bob", Roles: []string{"Role_ocadm"}}, []string{"Role_ocadm"}},
		{policy.Subject{Roles: []string{"role_ocadm"}}, nil},
	} {
		if got := p.Privileged(tc.subject); !slices.Equal(got, tc.want) {
			t.Errorf("OC6: %+v amounts to %q, want %q", tc.subject, got, tc.want)
		}
	}
}

func TestFillLaunch(t *testing.T) {
	host := policy.Host{Agent: "DB01_LSAM", Platform: "unix"}
	filled := func(object string, h policy.Host, b policy.BatchUser) (policy.Request, error) {
		r := policy.Request{}
		o, err := policy.ParseObject([]byte(object))
		if err != nil {
			t.Fatal(err)
		}
		r.Object = o
		return r, opcon.Model{}.FillLaunch(&r, h, b)
	}
	b := policy.BatchUser{Name: "users/payroll", Username: "payroll", Group: "users"}
	win := policy.BatchUser{Name: `CORP\SVC`, Platform: "windows"}
	for _, tc := range []struct {
		name, object string
		b            policy.BatchUser
		want         string // the filled object, or the field at fault
	}{
		{"all filled in, the machine's platform (OC1)", `{}`, b, `{"platform":"unix","batch_user":"users/payroll","machine":"DB01_LSAM"}`},
		{"its own platform (OC1)", `{}`, win, `{"platform":"windows","batch_user":"CORP\\SVC","machine":"DB01_LSAM"}`},
		{"the same said", `{"machine":"DB01_LSAM","platform":"unix","batch_user":"users/payroll"}`, b, `{"platform":"unix","batch_user":"users/payroll","machine":"DB01_LSAM"}`},
		{"the same in other letters (OC13)", `{"batch_user":"corp\\svc"}`, win, `{"platform":"windows","batch_user":"CORP\\SVC","machine":"DB01_LSAM"}`},
		{"another batch user", `{"batch_user":"users/other"}`, b, "object.batch_user"},
		{"other letters on unix (OC13)", `{"batch_user":"users/Payroll"}`, b, "object.batch_user"},
		{"an empty batch user", `{"batch_user":""}`, b, "object.batch_user"},
		{"another machine", `{"machine":"db02"}`, b, "object.machine"},
		{"no machine", `{"machine":""}`, b, "object.machine"},
		{"another platform", `{"platform":"windows"}`, b, "object.platform"},
		{"a platform that OpCon does not have", `{}`, policy.BatchUser{Name: "x", Platform: "plan9"}, "object.platform"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := filled(tc.object, host, tc.b)
			if invalid := (*policy.InvalidError)(nil); errors.As(err, &invalid) {
				if invalid.Field != tc.want {
					t.Errorf("got %v, want %s", err, tc.want)
				}
				return
			}
			got, _ := json.Marshal(r.Object)
			if err != nil || r.Action != "launch" || string(got) != tc.want {
				t.Errorf("got %s %s %v, want %s", r.Action, got, err, tc.want)
			}
		})
	}
	r := policy.Request{Action: "use"}
	if err := (opcon.Model{}).FillLaunch(&r, host, b); err == nil {
		t.Error("another action was taken for a launch")
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	p := compile(t, `{"roles":{"ops":{"batch_users":{"unix":["users/payroll"],"windows":["CORP\\SVC"]},"machines":["db01"]}},"users":{"jdoe":{"roles":["ops"]}},"host":{"black_list":["users/root"]}}`)
	for _, text := range []string{
		req("jdoe", "launch", "unix", "users/payroll", `,"machine":"db01"`),
		req("jdoe", "launch", "windows", `corp\svc`, `,"machine":"db01"`),
		req("jdoe", "launch", "windows", strings.Repeat("é", 2000), `,"machine":"db02"`),
		req("nobody @ops", "use", "unix", "users/x", ""),
		req("@Role_ocadm", "create", "unix", "users/x", ""),
	} {
		r := policytest.Request(t, text)
		var d policy.Decision
		if n := testing.AllocsPerRun(100, func() { d = p.Decide(r) }); n != 0 {
			t.Errorf("%s: %v allocations (%s)", text, n, d.Reason)
		}
	}
}

func TestHandbookNamesEveryRule(t *testing.T) {
	text, err := os.ReadFile("OPCON.md")
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 17; n++ {
		if n == 12 { // retired
			continue
		}
		if rule := fmt.Sprintf("**OC%d**", n); !strings.Contains(string(text), rule) {
			t.Errorf("OPCON.md does not speak of %s", rule)
		}
	}
}

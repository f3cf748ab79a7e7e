package automic_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/automic"
	"batchwarden/daemon/policy/policytest"
)

func TestVectors(t *testing.T) {
	policytest.RunShared(t, automic.Model{}, "A")
}

func compile(t testing.TB, members string) *automic.Policy {
	t.Helper()
	p, err := automic.Parse("doc.json", []byte(`{"model":"automic",`+members+`}`))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// row writes a row: "1 JOBS RX name=PAY.* host=H" (the name's \ as it is).
func row(text string) string {
	fields := strings.Fields(text)
	m := map[string]string{"grp": fields[0], "type": fields[1], "rights": fields[2]}
	for _, f := range fields[3:] {
		k, v, _ := strings.Cut(f, "=")
		m[k] = strings.ReplaceAll(v, "_", " ")
	}
	b, _ := json.Marshal(m)
	return string(b)
}

func rows(list ...string) string {
	for i := range list {
		list[i] = row(list[i])
	}
	return `{"rows":[` + strings.Join(list, ",") + `]}`
}

// user writes a document in which U has rows.
func user(list ...string) string { return `"users":{"U":` + rows(list...) + `}` }

// ask writes U's request; object is "type=JOBS name=X".
func ask(action, object string) string {
	m := map[string]string{}
	for _, f := range strings.Fields(object) {
		k, v, _ := strings.Cut(f, "=")
		m[k] = v
	}
	o, _ := json.Marshal(m)
	return fmt.Sprintf(`{"subject":{"user":"U"},"action":%q,"object":%s}`, action, o)
}

// TestRules has the allow and the deny side of every rule.
func TestRules(t *testing.T) {
	pooled := `"users":{"U":{"groups":["G"],"rows":[` + row("1 JOBS X name=*") + `]}},"groups":{"G":` + rows("2 JOBS X name=A* host=H") + `}`
	objects := func(access string) string {
		return `,"groups":{"G":{}},"objects":{"jobs/pay.run":{"access":{` + access + `}}}`
	}
	file := func(filter string) string { return user("1 JOBF X name=* file_src=" + filter) }
	src := func(name string) string { return ask("X", "type=JOBF name=F file_src="+name) }
	for _, tc := range []struct{ name, doc, request, want string }{
		{"AU1/each right by itself", user("1 JOBS RX name=*"), ask("X", "type=JOBS name=A"), "allow AU8"},
		{"AU1/not ticked", user("1 JOBS RX name=*"), ask("C", "type=JOBS name=A"), "deny AU8"},
		{"AU1/order means nothing", user("NOT JOBS X name=A", "1 JOBS X name=*"), ask("X", "type=JOBS name=A"), "deny AU7"},
		{"AU2/pooled, both groups", pooled, ask("X", "type=JOBS name=AB host=H"), "allow AU8"},
		{"AU2/joining a group can reduce", pooled, ask("X", "type=JOBS name=B host=H"), "deny AU8"},
		{"AU2/equal numbers merge", `"users":{"U":{"groups":["G"],"rows":[` + row("1 JOBS X name=B") + `]}},"groups":{"G":` + rows("1 JOBS X name=A") + `}`, ask("X", "type=JOBS name=A"), "allow AU8"},
		{"AU3/no rows", `"users":{"U":{}}`, ask("X", "type=JOBS name=A"), "deny AU3"},
		{"AU3/unknown user", `"users":{"V":` + rows("1 * X") + `}`, ask("X", "type=JOBS name=A"), "deny AU3"},
		{"AU3/user in other letters", `"users":{"u":` + rows("1 * X") + `}`, ask("X", "type=JOBS name=A"), "deny AU3"},
		{"AU3/rows", user("1 * X"), ask("X", "type=JOBS name=A"), "allow AU8"},

		{"AU5/every attribute of a request", user("1 JOBF X name=F host=H login=L file_src=/s/* host_dst=D login_dst=M file_dst=/t/*"),
			ask("X", "type=JOBF name=F host=H login=L file_src=/s/a host_dst=D login_dst=M file_dst=/t/a"), "allow AU8"},
		{"AU5/one of them is another", user("1 JOBF X name=F host=H login=L file_src=/s/* host_dst=D login_dst=M file_dst=/t/*"),
			ask("X", "type=JOBF name=F host=H login=L file_src=/s/a host_dst=D login_dst=N file_dst=/t/a"), "deny AU8"},
		{"AU5/one right, not two", user("1 JOBS RX name=*"), ask("RX", "type=JOBS name=A"), "invalid"},

		{"AU6/X is no right of VARA", user("1 VARA RWX name=*"), ask("X", "type=VARA name=A"), "deny AU6"},
		{"AU6/the row stays valid", user("1 VARA RWX name=*"), ask("W", "type=VARA name=A"), "allow AU8"},
		{"AU6/L for SCRI", user("1 * L name=*"), ask("L", "type=SCRI name=A"), "allow AU8"},
		{"AU6/no L for JSCH", user("1 * L name=*"), ask("L", "type=JSCH name=A"), "deny AU6"},
		{"AU6/M for HOST", user("1 * M name=*"), ask("M", "type=HOST name=A"), "allow AU8"},
		{"AU6/D for CALE", user("1 * D name=*"), ask("D", "type=CALE name=A"), "allow AU8"},
		{"AU6/no D for SLA", user("1 * D name=*"), ask("D", "type=SLA name=A"), "deny AU6"},
		{"AU6/no W for REPORT", user("1 * W name=*"), ask("W", "type=REPORT name=A"), "deny AU6"},
		{"AU6/everything for QUEUE", user("1 * L name=*"), ask("L", "type=QUEUE name=A"), "allow AU8"},
		{"AU6/unknown type", user("1 * X name=*"), ask("X", "type=JOBX name=A"), "deny AU6"},
		{"AU6/star is no type of an object", user("1 * X name=*"), ask("X", "type=* name=A"), "deny AU6"},

		{"AU7/NOT denies", user("1 * RX name=*", "NOT JOBS X name=A*"), ask("X", "type=JOBS name=AB"), "deny AU7"},
		{"AU7/only what it ticks", user("1 * RX name=*", "NOT JOBS X name=A*"), ask("R", "type=JOBS name=AB"), "allow AU8"},
		{"AU7/only what it matches", user("1 * RX name=*", "NOT JOBS X name=A*"), ask("X", "type=JOBS name=B"), "allow AU8"},
		{"AU7/never grants", user("not * X name=B"), ask("X", "type=JOBS name=A"), "deny AU3"},
		{"AU7/from a group", `"users":{"U":{"groups":["G"],"rows":[` + row("1 * X name=*") + `]}},"groups":{"G":` + rows("NOT * X name=A") + `}`, ask("X", "type=JOBS name=A"), "deny AU7"},

		{"AU8/OR in a group", user("1 JOBS X name=A", "1 JOBS X name=B"), ask("X", "type=JOBS name=B"), "allow AU8"},
		{"AU8/AND of groups", user("1 JOBS X name=*", "9 JOBS X name=A"), ask("X", "type=JOBS name=B"), "deny AU8"},
		{"AU8/a group of another type counts", user("1 JOBS X name=*", "2 CALE R name=*"), ask("X", "type=JOBS name=A"), "deny AU8"},
		{"AU8/group_scope type", `"group_scope":"type",` + user("1 JOBS X name=*", "2 CALE R name=*"), ask("X", "type=JOBS name=A"), "allow AU8"},
		{"AU8/group_scope type, no group", `"group_scope":"type",` + user("1 JOBS X name=*", "2 CALE R name=*"), ask("X", "type=SCRI name=A"), "deny AU3"},
		{"AU8/a group without rights counts", user("1 JOBS X name=*", `2 JOBS R name=A`), ask("X", "type=JOBS name=A"), "deny AU8"},
		{"AU9/columns of two rows are not combined", user("1 JOBS X name=A host=H", "1 JOBS X name=B host=I"), ask("X", "type=JOBS name=A host=I"), "deny AU8"},
		{"AU9/all columns of one row", user("1 JOBS X name=A host=H login=L"), ask("X", "type=JOBS name=A host=H login=L"), "allow AU8"},

		{"AU11/? is one", user("1 JOBS X name=A?C"), ask("X", "type=JOBS name=AÖC"), "allow AU8"},
		{"AU11/? is not none", user("1 JOBS X name=A?C"), ask("X", "type=JOBS name=AC"), "deny AU8"},
		{"AU11/* crosses separators", user("1 JOBS X name=A*C"), ask("X", "type=JOBS name=A.B/C"), "allow AU8"},
		{"AU11/no classes", user("1 JOBS X name=[AB]"), ask("X", "type=JOBS name=A"), "deny AU8"},
		{"AU12/a list", user("1 JOBS X name=A,_B*,C"), ask("X", "type=JOBS name=B1"), "allow AU8"},
		{"AU12/an empty element", user("1 JOBS X name=A,,"), ask("X", "type=JOBS name=B"), "deny AU8"},
		{"AU12/nothing but a comma", user("1 JOBS X name=,"), ask("X", "type=JOBS name=B"), "deny AU8"},
		{"AU12/hosts", user("1 JOBS X name=* host=H1,H2"), ask("X", "type=JOBS name=A host=h2"), "allow AU8"},
		{"AU12/types", user("1 JOBS,JOBP X name=*"), ask("X", "type=JOBP name=A"), "allow AU8"},

		{"AU14/names in any letters", user("1 jobs x name=pay.* host=db* login=l"), ask("x", "type=Jobs name=Pay.Run host=DB1 login=L"), "allow AU8"},
		{"AU14/NOT in any letters", user("1 * X name=*", "not JOBS X name=pay.*"), ask("X", "type=JOBS name=PAY.RUN"), "deny AU7"},
		{"AU14/file names as they are", file("/data/a*"), src("/data/A1"), "deny AU8"},
		{"AU14/file names as they are, same letters", file("/data/a*"), src("/data/a1"), "allow AU8"},
		{"AU14/Windows file names in any letters", file(`c:\Temp\*`), src(`C:/TEMP/x`), "allow AU8"},
		{"AU14/Windows file names, filter without a drive", file(`*.txt`), src(`C:\A.TXT`), "allow AU8"},
		{"AU14/UNC", file(`\\SRV\share\*`), src(`\\srv\SHARE/x`), "allow AU8"},
		{"AU14/.. is no file name", file("*"), src("/data/../etc/shadow"), "invalid"},
		{"AU14/. is no file name", file("*"), src("./x"), "invalid"},
		{"AU14/.. behind a drive", file("*"), src(`C:..\x`), "invalid"},
		{"AU14/.. between backslashes", file("*"), src(`data\..\x`), "invalid"},
		{"AU14/doubled separator", file("*"), src("/data//x"), "invalid"},
		{"AU14/doubled at the start", file("*"), src("//data"), "invalid"},
		{"AU14/doubled in UNC", file("*"), src(`\\\srv`), "invalid"},
		{"AU14/.. behind a drive and a backslash", file("*"), src(`C:\..\x`), "invalid"},
		{"AU14/dots in a name", file("/d/*"), src("/d/..a/b..c/...x"), "allow AU8"},
		{"AU14/a trailing separator", file("/d/*"), src("/d/e/"), "allow AU8"},

		{"AU15/empty columns", user("1  *  X"), ask("X", "type=JOBS name=A host=H login=L"), "allow AU8"},
		{"AU15/one that is not empty restricts", user("1 * X host=H"), ask("X", "type=JOBS name=A host=I login=L"), "deny AU8"},
		{"AU16/an object without a host", user("1 JOBS X name=* host=H"), ask("X", "type=JOBS name=A"), "allow AU8"},
		{"AU16/for NOT rows too", user("1 JOBS X name=*", "NOT JOBS X name=* login=ROOT"), ask("X", "type=JOBS name=A"), "deny AU7"},
		{"AU16/with another login", user("1 JOBS X name=*", "NOT JOBS X name=* login=ROOT"), ask("X", "type=JOBS name=A login=P"), "allow AU8"},
		{"AU16/no launch with an empty login", user("1 * X name=*"), ask("launch", "name=A host=H login="), "deny AU16"},
		{"AU16/the name is no attribute", user("1 * X name=*"), ask("X", "type=JOBS name="), "invalid"},

		{"AU17/begins with a backslash", user(`1 FOLD R name=PROD`), ask("R", `type=FOLD name=\PROD`), "deny AU8"},
		{"AU17/a bare star", user(`1 FOLD R name=*`), ask("R", `type=FOLD name=\PROD\X`), "allow AU8"},
		{"AU17/in any letters", user(`1 FOLD R name=\prod`), ask("R", `type=FOLD name=\PROD\`), "allow AU8"},
		{"AU17/a path that is none", user(`1 FOLD R name=*`), ask("R", `type=FOLD name=PROD`), "invalid"},
		{"AU17/written twice", user(`1 FOLD R name=*`), ask("R", `type=FOLD name=\PROD\\X`), "invalid"},
		{"AU18/the folder itself", user(`1 FOLD R name=\PROD\*`), ask("R", `type=FOLD name=\PROD`), "allow AU8"},
		{"AU18/everything below", user(`1 FOLD R name=\PROD\*`), ask("R", `type=FOLD name=\PROD\PAY\X`), "allow AU8"},
		{"AU18/not its namesake", user(`1 FOLD R name=\PROD\*`), ask("R", `type=FOLD name=\PRODUCTION`), "deny AU8"},
		{"AU18/plain glob", user(`1 FOLD R name=\PROD*`), ask("R", `type=FOLD name=\PRODUCTION\X`), "allow AU8"},
		{"AU18/the root", user(`1 FOLD R name=\*`), ask("R", `type=FOLD name=\`), "allow AU8"},
		{"AU19/direct children", user(`1 FOLD R name=\PROD\`), ask("R", `type=FOLD name=\PROD\PAY`), "allow AU8"},
		{"AU19/not deeper", user(`1 FOLD R name=\PROD\`), ask("R", `type=FOLD name=\PROD\PAY\X`), "deny AU8"},
		{"AU19/not the folder", user(`1 FOLD R name=\PROD\`), ask("R", `type=FOLD name=\PROD`), "deny AU8"},
		{"AU19/of the root", user(`1 FOLD R name=\`), ask("R", `type=FOLD name=\PROD`), "allow AU8"},
		{"AU19/not the root", user(`1 FOLD R name=\`), ask("R", `type=FOLD name=\`), "deny AU8"},
		{"AU20/not passed on to objects", user(`1 FOLD X name=\PROD\*`), ask("X", `type=JOBS name=A`), "deny AU8"},
		{"AU20/the object has a row of its own", user(`1 FOLD W name=\PROD\*`, "1 JOBS X name=A"), ask("X", `type=JOBS name=A`), "allow AU8"},

		{"AU21/folder and template", user(`1 FOLD W name=\PROD`, "1 JOBS W name=STD.*"), ask("create", `type=JOBS template=STD.UNIX folder=\PROD`), "allow AU21"},
		{"AU21/not the template", user(`1 FOLD W name=\PROD`, "1 JOBS W name=PAY.*"), ask("create", `type=JOBS template=STD.UNIX folder=\PROD`), "deny AU8"},
		{"AU21/not the folder", user(`1 FOLD W name=\TEST`, "1 JOBS W name=*"), ask("create", `type=JOBS template=STD.UNIX folder=\PROD`), "deny AU8"},
		{"AU21/unknown type", user("1 * W"), ask("create", `type=X template=STD.UNIX folder=\PROD`), "deny AU6"},
		{"AU22/W is enough", user(`1 FOLD W name=\PROD`), ask("delete_link", `folder=\PROD`), "allow AU22"},
		{"AU22/D is not", user(`1 FOLD D name=\PROD`), ask("delete_link", `folder=\PROD`), "deny AU8"},
		{"AU22/a favourite", user(`1 FOLD W name=\PROD`), ask("add_favorite", `folder=\PROD`), "allow AU22"},
		{"AU22/a favourite with R", user(`1 FOLD R name=\PROD`), ask("add_favorite", `folder=\PROD`), "deny AU8"},

		{"AU25/per type", user("1 JOBI R name=XC_*", "1 VARA R name=XC_*"), ask("R", "type=VARA name=XC_A"), "deny AU8"},
		{"AU25/granted", user("1 JOBI,VARA R name=XC?A"), ask("R", "type=VARA name=XC_A"), "allow AU8"},
		{"AU26/both", user("1 JOBS X name=A host=H login=L", "1 LOGIN X name=L"), ask("launch", "name=A host=H login=L"), "allow AU26"},
		{"AU26/not the login object", user("1 JOBS X name=A host=H login=L", "1 LOGIN R name=L"), ask("launch", "name=A host=H login=L"), "deny AU8"},
		{"AU26/not this host", user("1 JOBS X name=A host=H login=L", "1 LOGIN X name=L"), ask("launch", "name=A host=I login=L"), "deny AU8"},
		{"AU26/not this login", user("1 JOBS X name=A host=H login=L", "1 LOGIN X name=*"), ask("launch", "name=A host=H login=M"), "deny AU8"},
		{"AU27/one row with all columns", user("1 JOBF X name=* host=S file_src=/d/* host_dst=T login_dst=D file_dst=/i/*"), ask("X", "type=JOBF name=F host=S login=A file_src=/d/x host_dst=T login_dst=D file_dst=/i/x"), "allow AU8"},
		{"AU27/another destination", user("1 JOBF X name=* host=S host_dst=T"), ask("X", "type=JOBF name=F host=S host_dst=U"), "deny AU8"},

		{"AU28/listed user", user("1 * RX") + objects(`"U":"x"`), ask("X", "type=JOBS name=PAY.RUN"), "allow AU8"},
		{"AU28/listed with another right", user("1 * RX") + objects(`"U":"R"`), ask("X", "type=JOBS name=PAY.RUN"), "deny AU28"},
		{"AU28/not listed", user("1 * RX") + objects(`"V":"RX"`), ask("X", "type=JOBS name=PAY.RUN"), "deny AU28"},
		{"AU28/listed group", `"users":{"U":{"groups":["G"],"rows":[` + row("1 * X") + `]}}` + objects(`"G":"X"`), ask("X", "type=JOBS name=pay.run"), "allow AU8"},
		{"AU28/a group that he is not in", user("1 * X") + objects(`"G":"X"`), ask("X", "type=JOBS name=pay.run"), "deny AU28"},
		{"AU28/never instead of the user's right", user("1 * R") + objects(`"U":"X"`), ask("X", "type=JOBS name=PAY.RUN"), "deny AU8"},
		{"AU28/another object", user("1 * RX") + objects(`"V":"RX"`), ask("X", "type=JOBS name=PAY.RUN2"), "allow AU8"},
		{"AU28/binds launch", user("1 * X") + objects(`"V":"X"`), ask("launch", "name=PAY.RUN host=H login=L"), "deny AU28"},
		{"AU28/does not bind creating", user("1 * W") + objects(`"V":"W"`), ask("create", `type=JOBS template=PAY.RUN folder=\A`), "allow AU21"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, r := compile(t, tc.doc), policytest.Request(t, tc.request)
			d := p.Decide(r)
			if got := policytest.Answer(d); got != tc.want {
				t.Errorf("got %s (%s), want %s", got, d.Reason, tc.want)
			}
			e, trace := p.Explain(r)
			if policytest.Answer(e) != tc.want || !strings.Contains(trace.String(), d.Reason) || (trace.Fix == nil) != (d.Allowed || d.Code == policy.Invalid) {
				t.Errorf("explained: %s\n%s", policytest.Answer(e), trace)
			}
		})
	}
}

// TestNothingIsSticky: AU4, a changed profile is another Policy and counts for the next decision.
func TestNothingIsSticky(t *testing.T) {
	r := policytest.Request(t, ask("X", "type=JOBS name=A"))
	for _, want := range []string{"allow AU8", "deny AU8", "allow AU8"} {
		rights := map[string]string{"allow AU8": "X", "deny AU8": "R"}[want]
		if got := policytest.Answer(compile(t, user("1 JOBS "+rights+" name=*")).Decide(r)); got != want {
			t.Errorf("AU4: got %s, want %s", got, want)
		}
	}
}

func TestDenialInTheVendorsWords(t *testing.T) { // AU10
	p := compile(t, user("1 JOBS X name=* host=H", "1 LOGIN X name=*", "2 JOBS X name=B.*", "NOT JOBS X name=ROOT.*"))
	_, trace := p.Explain(policytest.Request(t, ask("launch", "name=a.1 host=h login=l")))
	for _, want := range []string{
		"U00004506 Access violation: User: 'U' Object: 'A.1' Access: 'X' Reason: No right found in authorization group '2'.",
		"U00004519 Used filter: 'JOBS/A.1/H//L///'",
		"authorization group 2 does not grant: no row of it matches and ticks X; the user has rows of it from here, so it has to  [users.U]",
		"row Grp 2, Type JOBS, Name B.*, rights X: Name does not match A.1  [users.U.rows[2]]",
		"U00011181: X on the LOGIN object \"L\" is missing",
	} {
		if !strings.Contains(trace.String(), want) {
			t.Errorf("no %q in\n%s", want, trace)
		}
	}
	d := p.Decide(policytest.Request(t, ask("X", "type=JOBS name=ROOT.1 host=H")))
	if want := "the NOT row users.U.rows[3] denies"; d.Reason != want {
		t.Errorf("got %q, want %q", d.Reason, want)
	}
}

// TestExplainManyRows: however many rows there are, the trace has what decided.
func TestExplainManyRows(t *testing.T) {
	list := []string{"2 JOBS X name=B"}
	for range 5000 {
		list = append(list, "1 JOBS X name=A", "1 JOBS X name=C")
	}
	_, trace := compile(t, user(list...)).Explain(policytest.Request(t, ask("X", "type=JOBS name=A")))
	for _, want := range []string{"4900 more rows that match", "4901 more rows that do not match", "group 1 grants", "group 2 does not grant: no row", "U00004506", "denied by AU8", "adding the row Grp 2, Type JOBS, Name A, rights X"} {
		if !strings.Contains(trace.String(), want) {
			t.Errorf("no %q in the trace", want)
		}
	}
	if len(trace.Lines) > 250 || trace.More > 0 {
		t.Errorf("%d lines, %d more", len(trace.Lines), trace.More)
	}
}

func TestInvalidRequests(t *testing.T) {
	p := compile(t, user("1 * RWX"))
	for text, want := range map[string]string{
		ask("Y", "type=JOBS name=A"):               "action: is not a right, create, delete_link, add_favorite or launch",
		ask("RX", "type=JOBS name=A"):              "action: is not a right, create, delete_link, add_favorite or launch",
		ask("", "type=JOBS name=A"):                "action: is not a right, create, delete_link, add_favorite or launch",
		ask("X", "type=JOBS"):                      `object.name: is required for the action "X"`,
		ask("X", "type=JOBS name=A platform=unix"): `object.platform: is not a member for the action "X"`,
		ask("launch", "name=A host=H"):             `object.login: is required for the action "launch"`,
		ask("launch", "name=A login=L type=JOBS"):  `object.type: is not a member for the action "launch"`,
		ask("create", `type=JOBS folder=\A`):       `object.template: is required for the action "create"`,
		ask("delete_link", `folder=A`):             `object.folder: does not begin with \`,
		ask("X", "type=JOBF name=A file_dst=a//b"): "object.file_dst: contains a doubled separator",
		`{"subject":{"user":"U","by":"V"},"action":"X","object":{"type":"JOBS","name":"A"}}`:      "subject.by: is not a member for automic",
		`{"subject":{"user":"U","roles":["V"]},"action":"X","object":{"type":"JOBS","name":"A"}}`: "subject.roles: is not a member for automic",
	} {
		if d := p.Decide(policytest.Request(t, text)); d.Allowed || d.Code != policy.Invalid || d.Reason != want {
			t.Errorf("%s\n got %+v\nwant %s", text, d, want)
		}
	}
}

func TestFillLaunch(t *testing.T) {
	host, b := policy.Host{Agent: "UX_DB01"}, policy.BatchUser{Name: "LOGIN.PAY"}
	for object, want := range map[string]string{
		`{"name":"PAY.RUN"}`: `{"name":"PAY.RUN","host":"UX_DB01","login":"LOGIN.PAY"}`,
		`{"name":"PAY.RUN","host":"ux_db01","login":"login.pay"}`: `{"name":"PAY.RUN","host":"UX_DB01","login":"LOGIN.PAY"}`,
		`{"host":"UX_DB02"}`:     "object.host",
		`{"host":""}`:            "object.host",
		`{"login":"LOGIN.ROOT"}`: "object.login",
		`{"login":""}`:           "object.login",
	} {
		o, err := policy.ParseObject([]byte(object))
		if err != nil {
			t.Fatal(err)
		}
		r := policy.Request{Object: o}
		err = automic.Model{}.FillLaunch(&r, host, b)
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
	r := policy.Request{Action: "X"}
	if err := (automic.Model{}).FillLaunch(&r, host, b); err == nil {
		t.Error("another action was taken for a launch")
	}
	if got := compile(t, user("1 * X")).Privileged(policy.Subject{User: "U"}); got != nil {
		t.Errorf("privileged: %q", got)
	}
}

func TestHandbookNamesEveryRule(t *testing.T) {
	text, err := os.ReadFile("AUTOMIC.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range strings.Fields("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 25 26 27 28") {
		if !strings.Contains(string(text), "**AU"+rule+"**") {
			t.Errorf("AUTOMIC.md does not speak of AU%s", rule)
		}
	}
}

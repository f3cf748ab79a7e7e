package policy

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestZeroDecisionDenies(t *testing.T) {
	var d Decision
	if _, ok := d.Grant(); ok || d.Allowed {
		t.Error("the zero Decision grants")
	}
	got, err := json.Marshal(d)
	if want := `{"allowed":false,"code":"policy.denied","rule":"","reason":""}`; err != nil || string(got) != want {
		t.Errorf("got %s %v, want %s", got, err, want)
	}
}

func TestDecisionJSON(t *testing.T) {
	for want, d := range map[string]Decision{
		`{"allowed":true,"code":"","rule":"OC5","reason":"r"}`:                             Allow(&Request{}, "OC5", "r"),
		`{"allowed":false,"code":"policy.denied","rule":"OC8","reason":"no"}`:              Deny("OC8", "no"),
		`{"allowed":false,"code":"request.invalid","rule":"","reason":"object.name: bad"}`: Refuse(&InvalidError{"object.name", "bad"}),
		`{"allowed":true,"code":"","rule":"ST20","reason":"","withheld":["V"]}`:            {Allowed: true, Rule: "ST20", Withheld: []string{"V"}},
	} {
		if got, err := json.Marshal(d); err != nil || string(got) != want {
			t.Errorf("got %s %v, want %s", got, err, want)
		}
	}
}

func TestGrant(t *testing.T) {
	if (Grant{}).Valid() || !reflect.DeepEqual((Grant{}).Request(), Request{}) {
		t.Error("the zero Grant is valid")
	}
	if _, ok := (Decision{Allowed: true}).Grant(); ok {
		t.Error("a Decision made by hand yields a Grant")
	}
	if _, ok := Deny("OC5", "").Grant(); ok {
		t.Error("a denial yields a Grant")
	}
	r := &Request{Action: "launch", Subject: Subject{Roles: []string{"a"}}}
	r.Object = Object{Given: MemberScripts, Scripts: []Record{{Name: "s", Services: []string{"FIN"}}}}
	d := Allow(r, "OC5", "")
	d.Withheld = []string{"V"}
	g, ok := d.Grant()
	if !ok || !g.Valid() || g.Rule() != "OC5" || g.Withheld()[0] != "V" {
		t.Fatalf("%+v %v", g, ok)
	}
	r.Action, r.Subject.Roles[0], r.Object.Scripts[0].Services[0] = "x", "x", "x"
	got := g.Request()
	got.Object.Scripts[0].Name = "y"
	if again := g.Request(); again.Action != "launch" || again.Subject.Roles[0] != "a" || again.Object.Scripts[0].Services[0] != "FIN" || again.Object.Scripts[0].Name != "s" {
		t.Errorf("the granted request changed: %+v", again)
	}
}

// everything has every member of every action.
const everything = `{"subject":{"user":"bob","roles":["a","b"],"by":"alice"},"action":"launch","object":{` +
	`"type":"1","name":"2","host":"3","login":"4","file_src":"5","host_dst":"6","login_dst":"7","file_dst":"8",` +
	`"template":"9","folder":"10","services":["11"],"parents":[{"name":"12","services":["S"]},{"name":"13"}],` +
	`"task":{"name":"14"},"trigger":{"name":"15"},"agent":{"name":"16"},"credential":{"name":"17"},` +
	`"scripts":[{"name":"18"}],"virtual_resources":[{"name":"19"}],"connections":[{"type":"SAP Connection","name":"20"}],` +
	`"variables":[{"name":"21"}],"bundle":{"name":"22"},"target":{"name":"23"},"owner":"24","user":"25",` +
	`"event":{"name":"26"},"record":{"type":"Agent","name":"27"},"platform":"28","batch_user":"29","machine":"30","references":31}}`

func TestEveryMember(t *testing.T) {
	r, err := ParseRequest([]byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	if want := Members(1)<<len(memberNames) - 1; r.Object.Given != want {
		t.Errorf("given %v, want all", r.Object.Given.Names())
	}
	got, err := json.Marshal(r)
	if err != nil || string(got) != everything {
		t.Errorf("got %s %v", got, err)
	}
	if r.Object.Name != "2" || r.Object.Parents[0].Services[0] != "S" || r.Object.Connections[0].Type != "SAP Connection" || r.Object.References != 31 {
		t.Errorf("%+v", r.Object)
	}
	clone := r.clone()
	if !reflect.DeepEqual(*clone, r) {
		t.Error("a clone differs")
	}
}

func TestGivenTellsEmptyFromAbsent(t *testing.T) {
	o, err := ParseObject([]byte(`{"login":"","services":[],"references":0}`))
	if err != nil || o.Given != MemberLogin|MemberServices|MemberReferences {
		t.Errorf("%v %v", o.Given.Names(), err)
	}
	if got, _ := json.Marshal(o); string(got) != `{"login":"","services":[],"references":0}` {
		t.Errorf("%s", got)
	}
}

func TestOnly(t *testing.T) {
	o := Object{Given: MemberPlatform | MemberHost}
	if err := o.Only("use", MemberPlatform|MemberHost, MemberPlatform); err != nil {
		t.Error(err)
	}
	if err := o.Only("use", MemberPlatform, 0); err == nil || err.Error() != `policy: object.host: is not a member for the action "use"` {
		t.Error(err)
	}
	if err := o.Only("use", MemberPlatform|MemberHost, MemberMachine); err == nil || err.Error() != `policy: object.machine: is required for the action "use"` {
		t.Error(err)
	}
}

func TestMalformedRequests(t *testing.T) {
	long := strings.Repeat("x", MaxText+1)
	object := func(members string) string { return `{"subject":{},"action":"use","object":{` + members + `}}` }
	for name, tc := range map[string]struct{ text, field, want string }{
		"empty":             {``, "", "ends in the middle"},
		"cut":               {`{"subject":{"user":"a"`, "", "ends in the middle"},
		"a list":            {`[]`, "", "must be an object"},
		"trailing":          {`{"subject":{},"action":"use","object":{}}{}`, "", "more text after its end"},
		"no subject":        {`{"action":"use","object":{}}`, "subject", "is required"},
		"no action":         {`{"subject":{},"object":{}}`, "action", "is required"},
		"unknown":           {`{"subject":{},"action":"use","objekt":{}}`, "objekt", "is not known; known here: subject, action, object"},
		"other letters":     {`{"Subject":{}}`, "Subject", "is not known"},
		"unknown subject":   {`{"subject":{"name":"x"}}`, "subject.name", "is not known"},
		"unknown member":    {object(`"hostname":"x"`), "object.hostname", "is not known"},
		"x_ member":         {object(`"x_note":"x"`), "object.x_note", "is not known"},
		"twice":             {`{"action":"use","action":"launch"}`, "action", "is there twice"},
		"member twice":      {object(`"name":"a","na\u006de":"b"`), "object.name", "is there twice"},
		"text":              {object(`"name":1`), "object.name", "must be a text"},
		"null":              {object(`"name":null`), "object.name", "must be a text"},
		"object for text":   {object(`"name":{}`), "object.name", "must be a text"},
		"number":            {object(`"references":"3"`), "object.references", "must be a whole number"},
		"fraction":          {object(`"references":1.5`), "object.references", "must be a whole number"},
		"negative":          {object(`"references":-1`), "object.references", "must be a whole number"},
		"huge":              {object(`"references":99999999999999999999`), "object.references", "must be a whole number"},
		"list":              {object(`"services":"FIN"`), "object.services", "must be a list"},
		"list element":      {object(`"services":["FIN",2]`), "object.services[1]", "must be a text"},
		"record":            {object(`"task":"T"`), "object.task", "must be an object"},
		"record name":       {object(`"task":{}`), "object.task.name", "is required"},
		"record member":     {object(`"task":{"name":"a","type":"Task"}`), "object.task.type", "is not known"},
		"record type":       {object(`"connections":[{"name":"a"}]`), "object.connections[0].type", "is required"},
		"deep":              {object(`"parents":[{"name":"a"},{"name":"b","services":[{}]}]`), "object.parents[1].services[0]", "must be a text"},
		"deeper than known": {object(`"services":[` + strings.Repeat("[", 5000)), "object.services[0]", "must be a text"},
		"long text":         {object(`"name":"` + long + `"`), "object.name", "is 4097 bytes, at most 4096"},
		"long list":         {object(`"services":["a"` + strings.Repeat(`,"a"`, MaxList) + `]`), "object.services", "more than 1000 elements"},
		"large":             {object(`"name":"a"`) + strings.Repeat(" ", MaxRequest), "", "at most 65536"},
		"NUL":               {object(`"name":"a\u0000"`), "object.name", "contains a NUL"},
		"half a surrogate":  {object(`"name":"\ud800"`), "object.name", "half of a surrogate pair"},
		"invalid UTF-8":     {object("\"name\":\"\xff\""), "", "is not valid UTF-8"},
		"not JSON":          {`{"subject":{"user":tru}}`, "subject.user", "is not JSON"},
		"wrong bracket":     {`{"subject":{],"action":"use"}`, "subject", "is not JSON"},
		"comma":             {object(`"name":"a",`), "object", "is not JSON"},
		"long unknown":      {`{"` + long + `":1}`, strings.Repeat("x", 100) + "…", "is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ParseRequest([]byte(tc.text))
			var invalid *InvalidError
			if !errors.As(err, &invalid) || invalid.Field != tc.field || !strings.Contains(invalid.Text, tc.want) {
				t.Errorf("got %v\nwant %s: %s", err, tc.field, tc.want)
			}
			if !reflect.DeepEqual(r, Request{}) {
				t.Errorf("half a request came back: %+v", r)
			}
		})
	}
}

func TestTrace(t *testing.T) {
	tr := &Trace{Decision: Deny("OC5", "not granted"), Fix: &Fix{"users.a.roles", json.RawMessage(`"ops"`), "adding it"}}
	tr.Add(OfGrant, "OC5", "roles.ops", false, "role %q", "ops")
	want := "  grant    role \"ops\"  [roles.ops]  (OC5)\ndenied by OC5: not granted\nwould be allowed by: adding it\n"
	if got := tr.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	wantJSON := `{"decision":{"allowed":false,"code":"policy.denied","rule":"OC5","reason":"not granted"},` +
		`"lines":[{"kind":"grant","rule":"OC5","from":"roles.ops","text":"role \"ops\""}],` +
		`"would_allow":{"place":"users.a.roles","value":"ops","text":"adding it"}}`
	if got, err := json.Marshal(tr); err != nil || string(got) != wantJSON {
		t.Errorf("got %s %v", got, err)
	}
	for range MaxLines + 1 {
		tr.Add(OfGrant, "", "", true, "x")
	}
	if len(tr.Lines) != MaxLines || tr.More != 2 || !strings.Contains(tr.String(), "and 2 more lines") {
		t.Errorf("%d lines, %d more", len(tr.Lines), tr.More)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte(`{"subject":{"roles":["ops"]},"action":"use","object":{"platform":"unix","batch_user":"users/payroll"}}`))
	f.Add([]byte(`{"subject":{},"action":"","object":{"parents":[{"name":"\ud83d\ude00","services":[]}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRequest(data)
		if err != nil {
			if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) || len(invalid.Error()) > 2000 {
				t.Fatalf("%v", err)
			}
			return
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > MaxRequest { // escapes make it longer than it came
			return
		}
		again, err := ParseRequest(text)
		if err != nil || !reflect.DeepEqual(again.Object, r.Object) || again.Action != r.Action || again.Subject.User != r.Subject.User {
			t.Fatalf("%q\nbecomes %s\n%v", data, text, err)
		}
	})
}

func BenchmarkParseRequest(b *testing.B) {
	data := []byte(`{"subject":{"user":"jdoe"},"action":"launch","object":{"platform":"unix","batch_user":"users/payroll","machine":"db01"}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRequest(data); err != nil {
			b.Fatal(err)
		}
	}
}

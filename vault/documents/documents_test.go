package documents

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"batchwarden/vault/snapshot"
)

func TestParseBatchUser(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want snapshot.BatchUser
		pw   string
	}{
		"the_least": {`{"username":"u","password":"p"}`,
			snapshot.BatchUser{Username: "u", Platform: "unix", Kind: "password", Launch: true}, "p"},
		"all_of_it": {`{"format":1,"username":"payroll","domain":"D","group":"pay","platform":"windows","kind":"password",
			"password":"a\"é b","names":{"opcon":"users/payroll","x_n":5,"none":""},"services":{"stonebranch":["FIN"],"x_s":{}},
			"launch":false,"retrieve":true,"pam":"su","max_stale":"72h","expires":"2027-01-01T00:00:00Z","x_note":{"a":[1]}}`,
			snapshot.BatchUser{Username: "payroll", Domain: "D", Group: "pay", Platform: "windows", Kind: "password", PAM: "su",
				Names: snapshot.Names{{Where: "opcon", Name: "users/payroll"}}, Services: map[string][]string{"stonebranch": {"FIN"}},
				Retrieve: true, MaxStale: 72 * time.Hour, Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}, "a\"é b"},
		"none_has_no_password": {`{"username":"u","kind":"none","password":"left over"}`,
			snapshot.BatchUser{Username: "u", Platform: "unix", Kind: "none", Launch: true}, ""},
		"empty_members_are_not_given": {`{"username":"u","password":"p","domain":"","platform":"","kind":"","max_stale":"","expires":"","source":{"path":""}}`,
			snapshot.BatchUser{Username: "u", Platform: "unix", Kind: "password", Launch: true}, "p"},
		"what_lies_elsewhere_wins": {`{"username":"u","password":"left over","source":{"path":"ldap/static-cred/u"}}`,
			snapshot.BatchUser{Username: "u", Platform: "unix", Kind: "password", Launch: true, Source: "ldap/static-cred/u"}, ""},
		"none_has_no_source": {`{"username":"u","kind":"none","source":{"path":"ldap/static-cred/u"}}`,
			snapshot.BatchUser{Username: "u", Platform: "unix", Kind: "none", Launch: true}, ""},
		"the_longest_password": {`{"username":"u","password":"` + strings.Repeat("é", 512) + `"}`,
			snapshot.BatchUser{Username: "u", Platform: "unix", Kind: "password", Launch: true}, strings.Repeat("é", 512)},
	} {
		t.Run(name, func(t *testing.T) {
			got, pw, err := ParseBatchUser([]byte(c.text), "unix")
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, c.want) {
				t.Errorf("got  %+v\nwant %+v", *got, c.want)
			}
			if string(pw) != c.pw {
				t.Error("not the password")
			}
		})
	}
}

func TestParseBatchUserRefuses(t *testing.T) {
	const canary = "canary-7f3a"
	member := func(m string) string { return `{"username":"u","password":"` + canary + `",` + m + `}` }
	for name, c := range map[string]struct{ text, want string }{
		"no_username":           {`{"password":"` + canary + `"}`, "username: is required"},
		"no_password":           {`{"username":"u"}`, "password: is required"},
		"an_empty_password":     {`{"username":"u","password":""}`, "password: is required"},
		"a_number_for_one":      {`{"username":"u","password":5}`, "password: must be a string"},
		"a_long_password":       {`{"username":"u","password":"` + canary + strings.Repeat("x", 1014) + `"}`, "password: longer than 1024"},
		"a_mebibyte_of_it":      {`{"username":"u","password":"` + strings.Repeat(canary, 100000) + `"}`, "password: longer than 1024"},
		"NUL_in_it":             {`{"username":"u","password":"` + canary + `\u0000"}`, "password: contains"},
		"half_a_surrogate":      {`{"username":"u","password":"` + canary + `\ud800"}`, "password: contains"},
		"an_unknown_member":     {member(`"pasword":"` + canary + `"`), "pasword: unknown member"},
		"one_inside_source":     {member(`"source":{"path":"","ttl":"1h"}`), "source.ttl: unknown member"},
		"a_long_source":         {member(`"source":{"path":"ldap/` + strings.Repeat("x", 256) + `"}`), "source.path: longer than 256"},
		"a_source_as_text":      {member(`"source":"ldap/static-cred/u"`), "source: must be an object"},
		"a_member_twice":        {member(`"username":"v"`), `"username" comes twice`},
		"a_name_twice":          {member(`"names":{"a":"1","a":"2"}`), `"a" comes twice`},
		"a_newer_format":        {member(`"format":2,"nobody_knows":1`), "format.newer"},
		"format_0":              {member(`"format":0`), "format: must be"},
		"format_as_text":        {member(`"format":"1"`), "format: must be"},
		"format_and_a_half":     {member(`"format":1.5`), "format: must be"},
		"an_unknown_platform":   {member(`"platform":"vms"`), "platform: must be one of unix"},
		"an_unknown_kind":       {member(`"kind":"key"`), "kind: must be one of"},
		"launch_as_text":        {member(`"launch":"true"`), "launch: must be true or false"},
		"launch_null":           {member(`"launch":null`), "launch: must be true or false"},
		"names_as_a_list":       {member(`"names":["a"]`), "names: must be an object"},
		"a_name_as_a_number":    {member(`"names":{"opcon":1}`), "names.opcon: must be a string"},
		"services_as_text":      {member(`"services":{"s":"FIN"}`), "services.s: must be a list"},
		"a_service_as_a_number": {member(`"services":{"s":[1]}`), "services.s: must be a string"},
		"no_duration":           {member(`"max_stale":"3 days"`), "max_stale: must be a duration"},
		"a_negative_one":        {member(`"max_stale":"-1h"`), "max_stale: must be a duration"},
		"no_time":               {member(`"expires":"tomorrow"`), "expires: must be a time"},
		"a_newline_in_a_name":   {member(`"group":"a\nb"`), "group: contains a control character"},
		"a_list":                {`["` + canary + `"]`, "the document is no object"},
		"text":                  {`"` + canary + `"`, "the document is no object"},
		"null":                  {`null`, "the document is no object"},
		"nothing":               {``, "not JSON"},
		"half_of_it":            {`{"username":"u","password":"` + canary, "not JSON"},
		"no_JSON":               {canary, "not JSON"},
		"two_of_it":             {member(`"x_a":1`) + `{}`, "something follows"},
		"a_deep_one":            {member(`"x_a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100)), "nested deeper"},
	} {
		t.Run(name, func(t *testing.T) {
			u, pw, err := ParseBatchUser([]byte(c.text), "unix")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, %v; want a refusal with %q", u, err, c.want)
			}
			if pw != nil || strings.Contains(err.Error(), canary) {
				t.Errorf("the password shows: %v", err)
			}
		})
	}
	_, _, err := ParseBatchUser([]byte(`{"kind":"key","b":1,"a":1}`), "unix")
	if err == nil || strings.Count(err.Error(), ";") != 3 {
		t.Errorf("got %v; want four faults together", err)
	}
}

func TestParsePolicy(t *testing.T) {
	for name, c := range map[string]struct {
		text, model, want string
		parts             int
	}{
		"plain":          {text: `{"model":"opcon","whatever":{}}`, model: "opcon"},
		"in_parts":       {text: `{"format":1,"model":"automic","encoding":"gzip+base64","parts":[{"version":1,"sha256":"x"}]}`, model: "automic", parts: 1},
		"no_model":       {text: `{}`, want: "model"},
		"other_model":    {text: `{"model":"cron"}`, want: "model"},
		"newer":          {text: `{"format":2,"model":"cron"}`, want: "format.newer"},
		"format_0":       {text: `{"format":0,"model":"opcon"}`, want: "format"},
		"a_list":         {text: `[]`, want: "JSON object"},
		"half":           {text: `{"model":"opcon"`, want: "JSON object"},
		"other_encoding": {text: `{"model":"opcon","encoding":"zstd","parts":[]}`, want: "encoding"},
		"no_parts":       {text: `{"model":"opcon","encoding":"gzip+base64"}`, want: "parts"},
		"empty_parts":    {text: `{"model":"opcon","encoding":"gzip+base64","parts":[]}`, want: "parts"},
		"parts_alone":    {text: `{"model":"opcon","parts":[]}`, want: "encoding"},
		"too_long":       {text: `{"model":"opcon","x":"` + strings.Repeat("x", 10<<20) + `"}`, want: "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			model, parts, err := ParsePolicy([]byte(c.text))
			if c.want == "" && (err != nil || model != c.model || len(parts) != c.parts) {
				t.Errorf("got %q, %v, %v", model, parts, err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want a refusal with %q", err, c.want)
			}
		})
	}
}

func TestGoodName(t *testing.T) {
	for _, good := range []string{"payroll", "A-1_b.c", strings.Repeat("x", 61), "..."} {
		if !GoodName(good) {
			t.Errorf("%q was refused", good)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b", "a b", "é", strings.Repeat("x", 62), "a\n", "parts/"} {
		if GoodName(bad) {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzParseBatchUser(f *testing.F) {
	f.Add([]byte(`{"username":"u","password":"p","names":{"a":"b"},"services":{"a":["b"]},"source":{"path":""}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		u, pw, err := ParseBatchUser(text, "unix")
		if err != nil {
			if u != nil || pw != nil {
				t.Fatal("a refused document gave something")
			}
			return
		}
		if !json.Valid(text) || u.Username == "" || (u.Kind == "password") != (len(pw) > 0 || u.Source != "") || len(pw) > 1024 {
			t.Fatalf("took %q as %+v", text, u)
		}
	})
}

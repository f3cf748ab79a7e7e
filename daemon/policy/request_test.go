package policy_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
)

// TestNewRequestIsTheParsedOne: values are held to what a JSON text of them is.
func TestNewRequestIsTheParsedOne(t *testing.T) {
	long, many := strings.Repeat("x", policy.MaxText+1), make([]string, policy.MaxList+1)
	for name, c := range map[string]struct {
		subject policy.Subject
		action  string
		object  string
		good    bool
	}{
		"plain":              {policy.Subject{User: "jdoe", Roles: []string{"a", "b"}, By: "x"}, "launch", `{"machine":"DB01"}`, true},
		"roles alone":        {policy.Subject{Roles: []string{"a"}}, "use", `{}`, true},
		"long user":          {policy.Subject{User: long}, "use", `{}`, false},
		"long role":          {policy.Subject{Roles: []string{"a", long}}, "use", `{}`, false},
		"many roles":         {policy.Subject{Roles: many}, "use", `{}`, false},
		"NUL in by":          {policy.Subject{User: "a", By: "\x00"}, "use", `{}`, false},
		"U+FFFD in user":     {policy.Subject{User: "\uFFFD"}, "use", `{}`, false},
		"long action":        {policy.Subject{User: "a"}, long, `{}`, false},
		"unknown member":     {policy.Subject{User: "a"}, "use", `{"machin":""}`, false},
		"member twice":       {policy.Subject{User: "a"}, "use", `{"machine":"a","machine":"b"}`, false},
		"object no object":   {policy.Subject{User: "a"}, "use", `null`, false},
		"text in the object": {policy.Subject{User: "a"}, "use", `{"machine":"` + long + `"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			subject, err := json.Marshal(c.subject)
			if err != nil {
				t.Fatal(err)
			}
			action, err := json.Marshal(c.action)
			if err != nil {
				t.Fatal(err)
			}
			want, wantErr := policy.ParseRequest(fmt.Appendf(nil, `{"subject":%s,"action":%s,"object":%s}`, subject, action, c.object))
			got, gotErr := policy.NewRequest(c.subject, c.action, []byte(c.object))
			if (gotErr == nil) != c.good || fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
				t.Errorf("got %v, want %v", gotErr, wantErr)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
	if r, err := policy.NewRequest(policy.Subject{User: "a"}, "use", nil); err != nil || r.Object.Given != 0 {
		t.Errorf("without an object: %+v, %v", r, err)
	}
}

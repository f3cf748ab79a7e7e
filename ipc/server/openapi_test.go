package server

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"batchwarden/ipc/wire"

	"github.com/goccy/go-yaml"
)

type document struct {
	Paths      map[string]map[string]any `yaml:"paths"`
	Components struct {
		Schemas map[string]struct {
			Properties map[string]map[string]any `yaml:"properties"`
		} `yaml:"schemas"`
	} `yaml:"components"`
}

func openapi(t *testing.T) (d document) {
	t.Helper()
	text, err := os.ReadFile("../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// described are the types of package wire that the API is made of, by the
// name of their schema.
var described = map[string]any{
	"Subject": wire.Subject{}, "Authorize": wire.Authorize{}, "Decision": wire.Decision{}, "Report": wire.Report{}, "Reported": wire.Reported{}, "Retrieve": wire.Retrieve{}, "Signal": wire.Signal{},
	"Launch": wire.Launch{}, "Script": wire.Script{}, "Unix": wire.Unix{}, "Job": wire.Job{}, "Rusage": wire.Rusage{}, "Jobs": wire.Jobs{},
	"BatchUser": wire.BatchUser{}, "BatchUsers": wire.BatchUsers{}, "Health": wire.Health{}, "Finding": wire.Finding{},
	"Whoami": wire.Whoami{}, "Peer": wire.Peer{}, "Status": wire.Status{}, "Sync": wire.Sync{}, "BatchUserCount": wire.BatchUserCount{},
	"Policy": wire.Policy{}, "Memory": wire.Memory{}, "LocalVault": wire.LocalVault{}, "Launcher": wire.Launcher{},
	"JobCount": wire.JobCount{}, "Match": wire.Match{}, "Event": wire.Event{}, "Events": wire.Events{}, "Suspension": wire.Suspension{}, "SecretID": wire.SecretID{},
	"Check": wire.Check{}, "DryRun": wire.DryRun{}, "Explains": wire.Explains{}, "Problem": wire.Problem{}, "HostKey": wire.HostKey{}, "Verified": wire.Verified{}, "Suspend": wire.Suspend{}, "SetLogLevel": wire.SetLogLevel{}, "LogLevel": wire.LogLevel{},
	"Reload": wire.Reload{}, "ConfigFault": wire.ConfigFault{},
}

// The document and the handlers say the same, in both directions: no call and
// no member is undocumented, and none is documented that does not exist.
func TestOpenAPI(t *testing.T) {
	d := openapi(t)
	t.Run("calls", func(t *testing.T) {
		var have, want []string
		for _, r := range table {
			have = append(have, r.pattern)
		}
		for path, methods := range d.Paths {
			for method := range methods {
				want = append(want, strings.ToUpper(method)+" "+path)
			}
		}
		slices.Sort(have)
		slices.Sort(want)
		if !slices.Equal(have, want) {
			t.Errorf("served:     %v\ndocumented: %v", have, want)
		}
	})
	t.Run("queries", func(t *testing.T) {
		want := map[string][]string{}
		for path, methods := range d.Paths {
			for method, v := range methods {
				parameters, _ := v.(map[string]any)["parameters"].([]any)
				for _, p := range parameters {
					if p := p.(map[string]any); p["in"] == "query" {
						call := strings.ToUpper(method) + " " + path
						want[call] = append(want[call], p["name"].(string))
					}
				}
			}
		}
		for _, r := range table {
			have := slices.Sorted(slices.Values(queries[r.pattern]))
			if documented := slices.Sorted(slices.Values(want[r.pattern])); !slices.Equal(have, documented) {
				t.Errorf("%s: served %v, documented %v", r.pattern, have, documented)
			}
		}
	})
	for name, v := range described {
		t.Run(name, func(t *testing.T) {
			schema, ok := d.Components.Schemas[name]
			if !ok {
				t.Fatal("no such schema")
			}
			kind := reflect.TypeOf(v)
			for i := range kind.NumField() {
				member, _, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
				if _, ok := schema.Properties[member]; !ok {
					t.Errorf("member %q is not documented", member)
				}
				delete(schema.Properties, member)
			}
			for member := range schema.Properties {
				t.Errorf("member %q is documented and does not exist", member)
			}
		})
	}
	for name := range d.Components.Schemas {
		if described[name] == nil {
			t.Errorf("schema %q describes no type", name)
		}
	}
}

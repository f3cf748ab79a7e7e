package server

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"batchwarden/ipc/wire"
)

func TestExact(t *testing.T) {
	for text, field := range map[string]string{
		`null`:                                      "",
		` "x"`:                                      "",
		`{"REALM":"x"}`:                             "REALM",
		`{"realm":"a","realm":"b"}`:                 "realm",
		`{"realm":"a","Realm":"b"}`:                 "Realm",
		`{"realm":"a","\u0072ealm":"b"}`:            "realm",
		`{"\u017fubject":{"user":"u"}}`:             "\u017fubject",
		`{"subject":{"user":"u","user":"root"}}`:    "user",
		`{"subject":{"roles":["a"],"roles":["b"]}}`: "roles",
		`{"subject":{"user":"u","RoleS":["b"]}}`:    "RoleS",
		`{"env":{"A":"1","A":"2"}}`:                 "A",
		`{"object":{"Name":[{"X":1,"X":2}]}}`:       "X",
	} {
		problem := parse(strings.NewReader(text), new(wire.Launch))
		if problem == nil || problem.Code != wire.RequestInvalid || problem.Field != field {
			t.Errorf("%s: %+v, want a fault of %q", text, problem, field)
		}
	}
	for _, text := range []string{
		`{}`, " {\"realm\" :\t\"realm\"}\n", `{"realm":"a\":","object":{"Name":{"NAME":1},"X":[{"X":1},{"X":2}]},"env":{"A":"a","a":"A"}}`,
		`{"\u0072ealm":"b","command":["{","}","\"","a"],"labels":{"K":"v"},"unix":{"limits":{"NOFILE":1}}}`,
	} {
		if problem := parse(strings.NewReader(text), new(wire.Launch)); problem != nil {
			t.Errorf("%s: %+v", text, problem)
		}
	}
}

// TestManyNames: beyond few names they are looked up otherwise, and with the same result.
func TestManyNames(t *testing.T) {
	for n := range 3 * few {
		var names strings.Builder
		for i := range n {
			fmt.Fprintf(&names, `"N%d":"x",`, i)
		}
		once := `{"env":{` + names.String() + `"M":"x"},"labels":{` + names.String() + `"M":"x"}}`
		if problem := parse(strings.NewReader(once), new(wire.Launch)); problem != nil {
			t.Errorf("%d names: %+v", n, problem)
		}
		for _, again := range []string{"N0", fmt.Sprintf("N%d", n-1), "M"} {
			twice := strings.Replace(once, `"M":"x"}}`, `"M":"x","`+again+`":"y"}}`, 1)
			if problem := parse(strings.NewReader(twice), new(wire.Launch)); n > 0 && (problem == nil || problem.Field != again) {
				t.Errorf("%d names and %s twice: %+v", n, again, problem)
			}
		}
	}
}

// TestFree: what has members of the caller's choice is listed, and nothing else.
func TestFree(t *testing.T) {
	found := map[string]bool{}
	var look func(reflect.Type)
	look = func(of reflect.Type) {
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct {
			return
		}
		for i := range of.NumField() {
			f := of.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !plain([]byte(name)) {
				t.Errorf("%s.%s: the name %q", of, f.Name, name)
			}
			if f.Type.Kind() == reflect.Map || f.Type == reflect.TypeFor[json.RawMessage]() {
				found[name] = true
			}
			look(f.Type)
		}
	}
	for _, body := range []any{wire.Authorize{}, wire.Retrieve{}, wire.Launch{}, wire.Signal{}, wire.Report{}, wire.HostKey{}} {
		look(reflect.TypeOf(body))
	}
	delete(found, "script") // refused by this version
	if !reflect.DeepEqual(found, free) {
		t.Errorf("got %v, want %v", found, free)
	}
}

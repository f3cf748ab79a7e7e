package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// each changes every leaf of v in turn, calls f, and changes it back.
func each(t *testing.T, v reflect.Value, path string, f func(path string)) {
	t.Helper()
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			each(t, v.Field(i), path+"."+v.Type().Field(i).Name, f)
		}
		return
	case reflect.String:
		v.SetString("another")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("another"), reflect.Zero(v.Type().Elem()))
	default:
		t.Fatalf("%s: %s is not known here", path, v.Kind())
	}
	f(path)
	v.Set(old)
}

// TestDiffSeesEverything: no setting can be changed without its being named, and what Keep keeps is named too.
func TestDiffSeesEverything(t *testing.T) {
	running, next := &Config{}, &Config{}
	names := map[string]string{}
	each(t, reflect.ValueOf(next).Elem(), "", func(path string) {
		if slices.Contains([]string{".Warnings", ".Files", ".SHA256"}, path) {
			return // about the files, not in them
		}
		places := Diff(running, next)
		if len(places) != 1 {
			t.Errorf("%s: named %q", path, places)
			return
		}
		if names[path] = places[0]; !strings.Contains(strings.ToLower(path), strings.ReplaceAll(strings.Split(places[0], ".")[0], "_", "")) {
			t.Errorf("%s is called %s", path, places[0])
		}
		c, restart := Keep(running, next)
		if len(restart) > 0 && (!slices.Equal(restart, places) || len(Diff(running, c)) != 0) || len(restart) == 0 && len(Diff(next, c)) != 0 {
			t.Errorf("%s: kept %q", path, restart)
		}
	})
	if len(names) < 40 {
		t.Errorf("only %d settings: %v", len(names), names)
	}
}

func TestDiff(t *testing.T) {
	client := func(name string, rate int) Client { return Client{Name: name, Rate: Rate{rate, time.Second}} }
	a := &Config{Machine: "db01", Clients: []Client{client("one", 1), client("two", 1), client("three", 1)}, Realms: map[string]Realm{"opcon": {Agent: "A"}, "old": {}}}
	b := &Config{Machine: "db02", Clients: []Client{client("two", 2), client("three", 1), client("four", 1)}, Realms: map[string]Realm{"opcon": {Agent: "B"}, "new": {}}}
	b.Log.Level, b.Groups = "debug", []string{}
	want := "machine log.level realms.new realms.old realms.opcon clients.four clients.one clients.two clients"
	if got := strings.Join(Diff(a, b), " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	c, restart := Keep(a, b)
	if c.Machine != "db01" || c.Log.Level != "debug" || !slices.Equal(restart, []string{"machine"}) || b.Machine != "db02" {
		t.Errorf("kept %+v, %q", c, restart)
	}
	moved := client("one", 1)
	moved.File, moved.Line = "clients.d/one.yaml", 3
	if got := Diff(&Config{Clients: []Client{client("one", 1)}}, &Config{Clients: []Client{moved}}); len(got) != 0 {
		t.Errorf("an entry that moved to another file: %q", got)
	}
	for place, want := range map[string]bool{"vault.address": true, "realms.new": true, "groups": true, "sync.interval": true, "clients.x": false, "log.level": false} {
		if Syncs([]string{"jobs.keep", place}) != want {
			t.Errorf("%s: %v", place, !want)
		}
	}
}

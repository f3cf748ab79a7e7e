package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const configuration = `vault: {address: https://v, auth: {role_id_file: /r, secret_id_file: /s}}
realms: {opcon: {model: opcon, agent: A}}
`

func TestConfigCheck(t *testing.T) {
	good := write(t, "batchwarden.yaml", configuration)
	bad := write(t, "batchwarden.yaml", configuration+"machine: a/b\nwat: 1\n")
	limits := write(t, "limits.yaml", "requesters: [opcon]\n")
	badLimits := write(t, "limits.yaml", "min_uid: -1\n")
	none := filepath.Join(t.TempDir(), "none.yaml")

	code, out, errs := command(t, "", "config", "check", good)
	if code != 0 || !strings.HasPrefix(out, good+": ok, ") {
		t.Errorf("good: got %d, %q, %q; want 0 and ok", code, out, errs)
	}
	code, out, errs = command(t, "", "config", "check", good, "--limits", limits)
	if code != 0 || !strings.HasPrefix(out, good+", "+limits+": ok, ") {
		t.Errorf("with limits: got %d, %q, %q; want 0 and ok", code, out, errs)
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{bad}, []string{bad + ":3:10: machine: ", bad + ":4:1: wat: is not known", bad + " is not a valid configuration: 2 faults; nothing was changed\n"}},
		{[]string{good, "--limits", badLimits}, []string{badLimits + ":1:10: min_uid: ", "1 fault;"}},
		{[]string{none}, []string{none + ": does not exist", "1 fault;"}},
	} {
		code, out, errs := command(t, "", append([]string{"config", "check"}, c.args...)...)
		if code != 78 || out != "" {
			t.Errorf("%q: got %d and %q on stdout, want 78 and nothing", c.args, code, out)
		}
		for _, want := range c.want {
			if !strings.Contains(errs, want) {
				t.Errorf("%q: got %q, want %s in it", c.args, errs, want)
			}
		}
	}
}

func TestConfigCheckJSON(t *testing.T) {
	bad := write(t, "batchwarden.yaml", configuration+"machine: a/b\n")
	code, out, _ := command(t, "", "config", "check", "--json", bad)
	var got verdict
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if code != 78 || got.Valid || len(got.Faults) != 1 || got.Faults[0].Place != "machine" || got.Faults[0].Line != 3 || got.Faults[0].Column != 10 {
		t.Errorf("got %d and %+v, want 78 and one fault of machine", code, got)
	}
	good := write(t, "batchwarden.yaml", configuration)
	code, out, _ = command(t, "", "config", "check", "--json", good)
	if code != 0 || !strings.Contains(out, `"valid": true`) || !strings.Contains(out, `"faults": []`) {
		t.Errorf("got %d and %s, want 0 and valid", code, out)
	}
}

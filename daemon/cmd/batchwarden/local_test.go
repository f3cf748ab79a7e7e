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

const document = `model: opcon
roles: {payroll-ops: {batch_users: {unix: [users/payroll]}, machines: [db01]}}
users: {jdoe: {roles: [payroll-ops]}}
batch_users: [{platform: unix, login: users/payroll, password_set: true}]
`

const requests = `{"subject":{"user":"jdoe"},"action":"launch","object":{"platform":"unix","batch_user":"users/payroll","machine":"db01"}}
{"subject":{"user":"eve"},"action":"launch","object":{"platform":"unix","batch_user":"users/payroll","machine":"db01"}}

{"subject":{"user":"jdoe"},"action":"launch","objekt":{}}
{"subject":{"user":"jdoe"},"action":"launch","object":{"platform":"unix","batch_user":"users/payroll","machine":"db01"}}`

// TestPolicyEval: one line in, one line out, in order, whatever the line is.
func TestPolicyEval(t *testing.T) {
	file := write(t, "policy.yaml", document)
	for _, explain := range []bool{false, true} {
		args := []string{"policy", "eval", "--policy", file}
		if explain {
			args = append(args, "--explain")
		}
		code, out, errs := command(t, requests, args...)
		if code != 0 || errs != "" {
			t.Fatalf("got %d, %q", code, errs)
		}
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		want := []string{`{"allowed":true,"code":"",`, `{"allowed":false,"code":"policy.denied",`, `{"allowed":false,"code":"request.invalid",`,
			`{"allowed":false,"code":"request.invalid","rule":"","reason":"objekt`, `{"allowed":true,"code":"",`}
		if len(lines) != len(want) {
			t.Fatalf("got %d lines, want %d:\n%s", len(lines), len(want), out)
		}
		for i, line := range lines {
			if !strings.HasPrefix(line, want[i]) || !json.Valid([]byte(line)) {
				t.Errorf("line %d: got %s, want %s…", i+1, line, want[i])
			}
			if traced := strings.Contains(line, `"trace":{`); traced != (explain && !strings.Contains(line, "request.invalid")) {
				t.Errorf("line %d, explain %v: got %s", i+1, explain, line)
			}
		}
	}
}

// TestPolicyEvalLongLine: a line longer than any request is one answer, and the next line is read as such.
func TestPolicyEvalLongLine(t *testing.T) {
	file := write(t, "policy.yaml", document)
	line, _, _ := strings.Cut(requests, "\n")
	code, out, _ := command(t, strings.Repeat("x", 1<<20)+"\r\n"+line+"\r\n", "policy", "eval", "--policy", file)
	lines := strings.Split(out, "\n")
	if code != 0 || len(lines) != 3 || !strings.Contains(lines[0], "request.invalid") || !strings.Contains(lines[1], `"allowed":true`) {
		t.Errorf("got %d and %q, want a refusal and an allowance", code, out)
	}
}

func TestPolicyRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{document + "wat: 1\n", ":5:1: wat: is not known"},
		{"model: opcon\n\tx", "policy.yaml:2"},
		{"users: {}\n", "model: is missing or not a text; known: opcon"},
		{"model: [opcon]\n", "model: is missing or not a text"},
		{"model: ca7\n", `model: "ca7" is not supported by this version; known: opcon`},
	} {
		code, out, errs := command(t, requests, "policy", "eval", "--policy", write(t, "policy.yaml", c.text))
		if code != 78 || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%q: got %d, %q, %q; want 78 and …%s…", c.text, code, out, errs, c.want)
		}
	}
	code, _, errs := command(t, "", "policy", "eval", "--policy", filepath.Join(t.TempDir(), "none"))
	if code != 78 || !strings.Contains(errs, "cannot be read: ") {
		t.Errorf("got %d, %q; want 78 and that it cannot be read", code, errs)
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"batchwarden/daemon/policy/policytest"
)

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
			args = append(args, "--explain", "--json")
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
		{"users: {}\n", "model: is missing or not a text; known: automic, opcon, stonebranch"},
		{"model: [opcon]\n", "model: is missing or not a text"},
		{"model: ca7\n", `model: "ca7" is not supported by this version; known: automic, opcon, stonebranch`},
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

// TestPolicyEvalExplains: the trace is there for programs in each line, and for people on stderr.
func TestPolicyEvalExplains(t *testing.T) {
	const ask = `{"subject":{"user":"JDOE/DEPT"},"action":"launch","object":{"name":"PAY.ROOT.X","host":"UX_1","login":"LOGIN.PAY"}}
{"subject":{"user":"JDOE/DEPT"},"action":"launch","object":{"name":"PAY.RUN","host":"HP_1","login":"LOGIN.HR"}}
{"subject":{"user":"NOBODY"},"action":"W","object":{"type":"FOLD","name":"PAY"}}
`
	code, out, errs := command(t, ask, "policy", "eval", "--explain", "--policy", "../../policy/automic/testdata/lint/sensible.yaml")
	if code != 0 || strings.Count(out, "\n") != 3 || !strings.Contains(out, `"trace":{`) {
		t.Errorf("got %d and %s", code, out)
	}
	golden(t, "explain.golden", errs)
}

// TestPolicyEvalTrailingText: what stands behind a request that is followed by very many blanks is not overlooked.
func TestPolicyEvalTrailingText(t *testing.T) {
	file := write(t, "policy.yaml", document)
	line, _, _ := strings.Cut(requests, "\n")
	for _, blank := range []string{" ", "\r"} {
		code, out, _ := command(t, line+strings.Repeat(blank, 1<<18)+"x\n", "policy", "eval", "--policy", file)
		if code != 0 || !strings.Contains(out, "request.invalid") {
			t.Errorf("%q: got %d and %s, want a refusal", blank, code, out)
		}
	}
}

// TestPolicyEvalVectors pushes all shared vectors through the command, each document as JSON.
func TestPolicyEvalVectors(t *testing.T) {
	vectors, err := policytest.Shared("")
	if err != nil || len(vectors) < 90 {
		t.Fatalf("%d vectors: %v", len(vectors), err)
	}
	for _, v := range vectors {
		var line bytes.Buffer
		if err := json.Compact(&line, v.Request); err != nil {
			t.Fatal(err)
		}
		code, out, errs := command(t, line.String()+"\n", "policy", "eval", "--policy", write(t, "policy.json", string(v.Doc)))
		var d struct {
			Allowed bool
			Code    string
		}
		switch {
		case v.Expect == "reject":
			if code != 78 || out != "" || errs == "" {
				t.Errorf("%s: got %d, %q, %q; want 78 and the faults", v.ID, code, out, errs)
			}
		case code != 0 || errs != "" || strings.Count(out, "\n") != 1 || json.Unmarshal([]byte(out), &d) != nil:
			t.Errorf("%s: got %d, %q, %q; want one decision", v.ID, code, out, errs)
		case d.Allowed != (v.Expect == "allow") || d.Allowed != (d.Code == ""):
			t.Errorf("%s: %s: got %s, want %s", v.ID, v.Note, out, v.Expect)
		}
	}
}

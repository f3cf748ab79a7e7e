package main

import (
	"encoding/json"
	"strings"
	"testing"
)

const older = `model: automic
users:
  JDOE/DEPT:
    groups: [OPS]
    rows: [{grp: "1", type: JOBS, name: PAY.*, login: LOGIN.PAY, rights: RX}]
groups: {OPS: {rows: [{grp: "1", type: LOGIN, name: LOGIN.PAY, rights: X}, {grp: NOT, type: JOBS, name: "*.ROOT", rights: X}]}}
`

const newer = `model: automic
users:
  JDOE/DEPT:
    groups: [OPS]
    rows: [{grp: "1", type: JOBS, name: PAY.A*, login: LOGIN.PAY, rights: RX}]
groups: {OPS: {rows: [{grp: "1", type: LOGIN, name: LOGIN.PAY, rights: X}]}}
`

const toCompare = `{"subject":{"user":"JDOE/DEPT"},"action":"launch","object":{"name":"PAY.RUN","host":"H","login":"LOGIN.PAY"}}
{"subject":{"user":"JDOE/DEPT"},"action":"launch","object":{"name":"PAY.ALL","host":"H","login":"LOGIN.PAY"}}
{"subject":{"user":"JDOE/DEPT"},"action":"X","object":{"type":"JOBS","name":"PAY.A.ROOT"}}

{"subject":{"user":"JDOE/DEPT"},"action":"X","object":{"type":"JOBS","name":"PAY.B.ROOT"}}
{"subject":{"user":"JDOE/DEPT"},"action":"X","object":{"type":"JOBS"}}
not json
`

// TestPolicyDiff: the requests that change, in order, and nothing of those that do not.
func TestPolicyDiff(t *testing.T) {
	before, after, file := write(t, "old.yaml", older), write(t, "new.yaml", newer), write(t, "requests.jsonl", toCompare)
	code, out, errs := command(t, "", "policy", "diff", before, after, "--requests", file)
	if code != 1 || errs != "" {
		t.Errorf("got %d and %q, want 1 and no word", code, errs)
	}
	golden(t, "diff.golden", out)
	code, out, _ = command(t, toCompare, "policy", "diff", before, after, "--requests", "-", "--all", "--json")
	if code != 1 {
		t.Errorf("got %d, want 1", code)
	}
	golden(t, "diff_json.golden", out)
	code, out, _ = command(t, "", "policy", "diff", before, after, "--generate")
	if code != 1 {
		t.Errorf("got %d, want 1", code)
	}
	golden(t, "diff_generated.golden", out)
}

// TestPolicyDiffNothing: a document does not differ from itself, in whatever way it is written.
func TestPolicyDiffNothing(t *testing.T) {
	for _, model := range []string{"automic", "opcon", "stonebranch"} {
		file := "../../policy/" + model + "/testdata/lint/sensible.yaml"
		code, out, errs := command(t, "", "policy", "diff", file, file, "--generate", "--all", "--json")
		var got struct{ Summary summary }
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || errs != "" || got.Summary.Requests < 50 || got.Summary.Invalid != 0 || got.Summary.Cut != nil {
			t.Errorf("%s: got %d, %s, %q; want many requests and no change", model, code, out, errs)
		}
	}
}

func TestPolicyDiffIsCut(t *testing.T) {
	before, after := write(t, "old.yaml", older), write(t, "new.yaml", newer)
	_, out, _ := command(t, "", "policy", "diff", before, after, "--generate", "--limit", "60")
	if !strings.Contains(out, "60 requests: ") || !strings.Contains(out, "cut: not all combinations were made for 1 of 1 subjects (JDOE/DEPT); --limit makes more\n") {
		t.Errorf("got %s, want where it was cut", out)
	}
}

func TestPolicyDiffRefused(t *testing.T) {
	good, other := write(t, "good.yaml", older), write(t, "other.yaml", "model: opcon\n")
	bad, worse := write(t, "bad.yaml", older+"wat: 1\n"), write(t, "worse.yaml", "model: ca7\n")
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{good, bad, "--generate"}, 78, []string{bad + ":7:1: wat: is not known"}},
		{[]string{bad, worse, "--generate"}, 78, []string{bad + ":7:1: wat", `"ca7" is not supported`}},
		{[]string{good, other, "--generate"}, 78, []string{"is of the model automic and", "of opcon: no request is valid for both"}},
		{[]string{good, good}, 64, []string{"--requests FILE or --generate"}},
		{[]string{good, good, "--generate", "--requests", "x"}, 64, []string{"--requests FILE or --generate"}},
		{[]string{good, good, "--generate", "--limit", "0"}, 64, []string{"--limit 0 is not between 1 and"}},
		{[]string{good}, 64, []string{"accepts 2 arg(s)"}},
		{[]string{good, good, "--requests", good + ".none"}, 1, []string{"requests cannot be read"}},
	} {
		code, _, errs := command(t, "", append([]string{"policy", "diff"}, c.args...)...)
		if code != c.code {
			t.Errorf("%q: got %d, want %d", c.args, code, c.code)
		}
		for _, want := range c.want {
			if !strings.Contains(errs, want) {
				t.Errorf("%q: got %q, want %s in it", c.args, errs, want)
			}
		}
	}
}

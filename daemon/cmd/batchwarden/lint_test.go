package main

import (
	"encoding/json"
	"strings"
	"testing"
)

const doubtful = `model: automic
users:
  JDOE/DEPT:
    groups: [OPS]
    rows:
    - {grp: "1", type: JOBS, name: PAY.*, rights: RX}
    - grp: NOT
      type: "*"
      host: TEST*
      rights: X
groups:
  OPS:
    rows:
    - {grp: "2", type: CALE, rights: R}
    - {grp: "1", type: FOLD, name: 'PROD\*', rights: RX}
  GONE: {rows: []}
`

// TestPolicyLint: findings of several files in the order of their lines, exit code 1; of a refused one its faults, 78.
func TestPolicyLint(t *testing.T) {
	file := write(t, "doubtful.yaml", doubtful)
	asJSON := write(t, "one.json", `{"model":"opcon","roles":{"r":{}}}`)
	code, out, errs := command(t, "", "policy", "lint", file, asJSON)
	if code != 1 || errs != "" {
		t.Errorf("got %d and %q, want 1 and no word", code, errs)
	}
	golden(t, "lint.golden", strings.NewReplacer(file, "doubtful.yaml", asJSON, "one.json").Replace(out))

	broken := write(t, "broken.yaml", "model: automic\nusers: {U: {rows: [{grp: \"0\", type: NONE}]}}\n")
	code, out, errs = command(t, "", "policy", "lint", broken, asJSON)
	if code != 78 || strings.Count(errs, broken+":2:") != 2 || !strings.Contains(errs, "1 document refused") || !strings.Contains(out, "[role.empty]") {
		t.Errorf("got %d, %q, %q; want 78, two faults and what the other file has", code, out, errs)
	}
	code, out, errs = command(t, "", "policy", "lint", "../../policy/automic/testdata/lint/sensible.yaml",
		"../../policy/opcon/testdata/lint/sensible.yaml", "../../policy/stonebranch/testdata/lint/sensible.yaml")
	if code != 0 || out != "" || errs != "" {
		t.Errorf("sensible documents: got %d, %q, %q; want nothing", code, out, errs)
	}
	if code, _, errs = command(t, "", "policy", "lint"); code != 64 {
		t.Errorf("no file: got %d and %q, want 64", code, errs)
	}
}

func TestPolicyLintJSON(t *testing.T) {
	file, broken := write(t, "doubtful.yaml", doubtful), write(t, "broken.yaml", "model: opcon\nwat: 1\n")
	code, out, _ := command(t, "", "policy", "lint", "--json", file, broken)
	var got struct {
		Findings []struct {
			File, Place, Code, Text string
			Line                    int
		}
		Refused []fault
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if code != 78 || len(got.Refused) != 1 || got.Refused[0].Place != "wat" || got.Refused[0].File != broken {
		t.Errorf("got %d and %+v, want 78 and the fault", code, got.Refused)
	}
	for _, f := range got.Findings {
		if f.Code == "folder.path" {
			if f.Line != 15 || f.Place != "groups.OPS.rows[1].name" || f.File != file || f.Text == "" {
				t.Errorf("got %+v", f)
			}
			return
		}
	}
	t.Errorf("got %s, want a folder.path in it", out)
}

// TestPolicyLintManyFindings: what has no line any more comes last, and nothing is lost.
func TestPolicyLintManyFindings(t *testing.T) {
	var users []string
	for i := range 1500 {
		users = append(users, `"u`+strings.Repeat("x", i%7)+string(rune('a'+i%26))+strings.Repeat("y", i/26)+`":{}`)
	}
	doc := `{"model":"opcon","users":{` + strings.Join(users, ",\n") + `}}`
	_, out, _ := command(t, "", "policy", "lint", write(t, "many.json", doc))
	if n := strings.Count(out, "[user.empty]"); n != 1500 {
		t.Errorf("got %d findings, want 1500", n)
	}
	first, last := out[:strings.IndexByte(out, '\n')], out[strings.LastIndexByte(strings.TrimSpace(out), '\n')+1:]
	if !strings.Contains(first, "many.json:") || strings.Contains(last, "many.json:1") || !strings.Contains(last, "many.json: users.") {
		t.Errorf("first %s\nlast %s", first, last)
	}
}

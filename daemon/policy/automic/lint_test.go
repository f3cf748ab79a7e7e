package automic_test

import (
	"errors"
	"os"
	"testing"

	"batchwarden/daemon/policy/automic"
	"batchwarden/daemon/policy/policytest"
	"batchwarden/daemon/strict"
)

func TestLint(t *testing.T) {
	const head = "model: automic\n"
	one := func(rows string) string { return head + "users: {U: {rows: [" + rows + "]}}" }
	two := func(own, group string) string {
		return head + "users: {U: {groups: [G], rows: [" + own + "]}}\ngroups: {G: {rows: [" + group + "]}}"
	}
	list := func(object, access string) string {
		return one(`{grp: "1", type: JOBS, rights: RX}, {grp: "1", type: LOGIN, rights: X}`) + "\nobjects: {" + object + ": {access: {" + access + "}}}"
	}
	policytest.Lint(t, automic.Model{}, text(t, "AUTOMIC.md"), text(t, "testdata/lint/sensible.yaml"), []policytest.Doubt{
		{"row.never", "users.U.rows[0].name", one(`{grp: "1", type: JOBS, name: " , ", rights: R}`), one(`{grp: "1", type: JOBS, name: "A, ", rights: R}`)},
		{"row.never", "users.U.rows[0].type", one(`{grp: "1", type: ",", rights: R}`), one(`{grp: "1", type: "", rights: R}`)},
		{"row.never", "users.U.rows[0].file_dst", one(`{grp: "1", type: JOBF, file_dst: ",", rights: R}`), one(`{grp: "1", type: JOBF, file_dst: ",*", rights: R}`)},
		{"row.right", "users.U.rows[0].rights", one(`{grp: "1", type: "FOLD,VARA", rights: RX}`), one(`{grp: "1", type: "FOLD,JOBS", rights: RX}`)},
		{"row.no_rights", "users.U.rows[0].rights", one(`{grp: "1", type: JOBS, rights: ""}`), one(`{grp: "1", type: JOBS, rights: R}`)},
		{"row.shadowed", "users.U.rows[0]", one(`{grp: "1", type: JOBS, name: PAY.A*, rights: R}, {grp: "1", type: JOBS, name: HR.*, rights: R}, {grp: NOT, type: JOBS, name: PAY.*, rights: RX}`),
			one(`{grp: "1", type: JOBS, name: PAY.A*, host: H, rights: R}, {grp: "1", type: JOBS, name: HR.*, rights: R}, {grp: NOT, type: JOBS, name: PAY.*, host: I, rights: RX}`)},
		{"row.shadowed", "users.U.rows[0]", one(`{grp: "1", type: FOLD, name: '\P\A', rights: R}, {grp: "1", type: JOBS, rights: R}, {grp: NOT, type: FOLD, name: '\P\*', rights: R}`),
			one(`{grp: "1", type: FOLD, name: '\P\A', rights: R}, {grp: "1", type: JOBS, rights: R}, {grp: NOT, type: FOLD, name: '\P\A\', rights: R}`)},
		{"filter.never", "users.U.rows[0].name", one(`{grp: "1", type: JOBS, name: '\PROD\*', rights: R}`), one(`{grp: "1", type: "JOBS,FOLD", name: '\PROD\*', rights: R}`)},
		{"filter.never", "users.U.rows[0].name", one(`{grp: "1", type: FOLD, name: '\PROD\\A', rights: R}`), one(`{grp: "1", type: USER, name: 'A/B', rights: R}`)},
		{"filter.never", "users.U.rows[0].file_src", one(`{grp: "1", type: JOBF, file_src: /data/../etc/*, rights: X}`), one(`{grp: "1", type: JOBF, file_src: '\\srv\data\..*', rights: X}`)},
		{"folder.path", "users.U.rows[0].name", one(`{grp: "1", type: FOLD, name: 'PROD\*', rights: R}`), one(`{grp: "1", type: FOLD, name: '\PROD\*, *', rights: R}`)},
		{"folder.path", "users.U.rows[0].name", one(`{grp: "1", type: "JOBS,FOLD", name: PROD, rights: R}`), one(`{grp: "1", type: "*", name: PROD, rights: R}`)},
		{"not.launch", "users.U.rows[1]", one(`{grp: "1", rights: X}, {grp: NOT, type: "*", name: "*", host: TEST*, rights: X}`), one(`{grp: "1", rights: X}, {grp: NOT, type: JOBS, name: "*", host: TEST*, rights: X}`)},
		{"not.group", "users.U.rows[0]", two(`{grp: NOT, type: "*", rights: RX}`, `{grp: "1", type: JOBS, rights: R}, {grp: "1", type: VARA, rights: R}`), two(`{grp: NOT, type: "*", rights: RX}`, `{grp: "1", type: JOBS, rights: R}, {grp: "1", type: VARA, rights: RW}`)},
		{"group.uncovered", "groups.G.rows[0]", two(`{grp: "1", type: JOBS, rights: R}`, `{grp: "2", type: "CALE,JOBS", rights: R}, {grp: "1", type: LOGIN, rights: R}, {grp: "1", type: CALE, rights: R}`), two(`{grp: "1", type: JOBS, rights: R}`, `{grp: "2", type: "*", host: H, rights: R}`)},
		{"group.alone", "groups.G.rows[0]", two(`{grp: "1", type: JOBS, rights: R}`, `{grp: "2", type: JOBS, name: B*, rights: R}`), two(`{grp: "1", type: JOBS, rights: R}`, `{grp: "1", type: JOBS, name: B*, rights: R}`)},
		{"group.unused", "groups.H", head + "users: {U: {}}\ngroups: {H: {rows: []}}", two(``, `{grp: "1", type: VARA, rights: R}`)},
		{"group.empty", "groups.G", two(`{grp: "1", type: VARA, rights: R}`, ``), two(`{grp: "1", type: VARA, rights: R}`, ``) + "\nobjects: {VARA/X: {access: {G: R}}}"},
		{"user.empty", "users.U", one(`{grp: NOT, type: VARA, rights: R}`), one(`{grp: "1", type: VARA, rights: R}`)},
		{"user.empty", "users.U", two(``, ``), two(``, `{grp: "1", type: VARA, rights: R}`)},
		{"user.no_login", "users.U", one(`{grp: "1", type: JOBS, rights: X}`), one(`{grp: "1", type: "JOBS,LOGIN", rights: X}`)},
		{"object.unused", "objects.VARA/A", list("VARA/A", "U: R"), list("JOBS/A", "U: R")},
		{"object.principal", "objects.JOBS/A.access.V", list("JOBS/A", "U: R, V: R"), list("JOBS/A", "U: R")},
		{"object.right", "objects.LOGIN/A.access.U", list("LOGIN/A", "U: RS"), list("LOGIN/A", "U: RX")},
		{"object.nobody", "objects.JOBS/A", list("JOBS/A", `U: ""`), list("JOBS/A", "U: X")},
	})
}

// TestLintGroupScope: with group_scope type a group without the type does not count.
func TestLintGroupScope(t *testing.T) {
	const doc = `{"model":"automic","group_scope":"type","users":{"U":{"rows":[{"grp":"1","type":"VARA","rights":"R"},{"grp":"2","type":"CALE","rights":"R"}]}}}`
	if found, err := (automic.Model{}).Lint("d", []byte(doc)); err != nil || len(found) > 0 {
		t.Errorf("got %v and %v, want nothing", found, err)
	}
}

func TestLintRefuses(t *testing.T) {
	found, err := automic.Model{}.Lint("d", []byte("model: automic\nwat: 1\nusers: {U: {}}\n"))
	if _, are := errors.AsType[strict.Faults](err); !are || found != nil {
		t.Errorf("got %v and %v, want the document's faults alone", found, err)
	}
}

func text(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

package automic_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/automic"
)

// plainDoc is a document as it is written; its methods read the rules off it
// one by one, slowly and plainly.
type plainDoc struct {
	Model   string                 `json:"model"`
	Scope   string                 `json:"group_scope"`
	Users   map[string]plainUser   `json:"users"`
	Groups  map[string]plainUser   `json:"groups"`
	Objects map[string]plainObject `json:"objects"`
}

type plainUser struct {
	Groups []string            `json:"groups,omitempty"`
	Rows   []map[string]string `json:"rows"`
}

type plainObject struct {
	Access map[string]string `json:"access"`
}

var plainRights = map[string]string{"JOBS": "RWXDCSPML", "JOBF": "RWXDCSPML", "JSCH": "RWXDCSPM", "FOLD": "RWD", "VARA": "RWD", "LOGIN": "RWXD", "REPORT": "R"}

func glob(p, t []rune) bool {
	switch {
	case len(p) == 0:
		return len(t) == 0
	case p[0] == '*':
		return glob(p[1:], t) || len(t) > 0 && glob(p, t[1:])
	}
	return len(t) > 0 && (p[0] == '?' || p[0] == t[0]) && glob(p[1:], t[1:])
}

func anyElement(column string, f func(element string) bool) bool {
	return column == "" || slices.ContainsFunc(strings.Split(column, ","), func(e string) bool {
		e = strings.TrimSpace(e)
		return e == "*" || e != "" && f(e)
	})
}

func plainColumn(column, value string) bool {
	return anyElement(column, func(e string) bool { return glob([]rune(strings.ToUpper(e)), []rune(strings.ToUpper(value))) })
}

func plainFile(column, value string) bool {
	win := strings.HasPrefix(value, `\\`) || len(value) > 1 && value[1] == ':' && strings.Contains("abcdefghijklmnopqrstuvwxyz", strings.ToLower(value[:1]))
	norm := func(s string) []rune {
		if win {
			s = strings.ReplaceAll(strings.ToUpper(s), "/", `\`)
		}
		return []rune(s)
	}
	return anyElement(column, func(e string) bool { return glob(norm(e), norm(value)) })
}

func plainFolder(column, path string) bool {
	if path != `\` {
		path = strings.TrimSuffix(path, `\`)
	}
	path = strings.ToUpper(path)
	return anyElement(column, func(e string) bool {
		e = strings.ToUpper(e)
		if !strings.HasPrefix(e, `\`) {
			return false
		}
		switch {
		case strings.HasSuffix(e, `\*`) && glob([]rune(strings.TrimSuffix(e, `\*`)), []rune(path)):
			return true
		case strings.HasSuffix(e, `\`):
			i := strings.LastIndex(path, `\`)
			return path[i+1:] != "" && glob([]rune(strings.TrimSuffix(e, `\`)), []rune(path[:i]))
		}
		return glob([]rune(e), []rune(path))
	})
}

func (doc plainDoc) rows(user string) []map[string]string {
	all := slices.Clone(doc.Users[user].Rows)
	for _, g := range doc.Users[user].Groups {
		all = append(all, doc.Groups[g].Rows...)
	}
	return all
}

func (doc plainDoc) may(user, right string, o map[string]string) bool {
	kind := strings.ToUpper(o["type"])
	if !strings.Contains(plainRights[kind], right) {
		return false
	}
	covers := func(r map[string]string) bool { return plainColumn(r["type"], kind) }
	matches := func(r map[string]string) bool {
		if !covers(r) || !strings.Contains(strings.ToUpper(r["rights"]), right) {
			return false
		}
		if kind == "FOLD" && !plainFolder(r["name"], o["name"]) || kind != "FOLD" && !plainColumn(r["name"], o["name"]) {
			return false
		}
		for _, c := range []string{"host", "login", "host_dst", "login_dst", "file_src", "file_dst"} {
			match := plainColumn
			if strings.HasPrefix(c, "file") {
				match = plainFile
			}
			if o[c] != "" && !match(r[c], o[c]) {
				return false
			}
		}
		return true
	}
	need, got := map[string]bool{}, map[string]bool{}
	for _, r := range doc.rows(user) {
		if strings.ToUpper(r["grp"]) == "NOT" {
			if matches(r) {
				return false
			}
			continue
		}
		if doc.Scope == "all" || covers(r) {
			need[r["grp"]] = true
		}
		if matches(r) {
			got[r["grp"]] = true
		}
	}
	return len(need) > 0 && len(got) == len(need)
}

func (doc plainDoc) listed(user, right string, o map[string]string) bool {
	for id, object := range doc.Objects {
		if strings.EqualFold(id, o["type"]+"/"+strings.TrimSuffix(o["name"], `\`)) {
			who := append([]string{user}, doc.Users[user].Groups...)
			return slices.ContainsFunc(who, func(w string) bool { return strings.Contains(strings.ToUpper(object.Access[w]), right) })
		}
	}
	return true
}

func (doc plainDoc) allowed(user, action string, o map[string]string) bool {
	for _, c := range []string{"file_src", "file_dst"} {
		parts := strings.FieldsFunc(strings.TrimPrefix(o[c], "C:"), func(r rune) bool { return r == '/' || r == '\\' })
		if slices.Contains(parts, "..") || slices.Contains(parts, ".") {
			return false
		}
	}
	object := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	switch action {
	case "launch":
		job := object("type", "JOBS", "name", o["name"], "host", o["host"], "login", o["login"])
		return doc.may(user, "X", job) && doc.listed(user, "X", job) && doc.may(user, "X", object("type", "LOGIN", "name", o["login"]))
	case "create":
		return doc.may(user, "W", object("type", "FOLD", "name", o["folder"])) && doc.may(user, "W", object("type", o["type"], "name", o["template"]))
	case "delete_link":
		return doc.may(user, "W", object("type", "FOLD", "name", o["folder"]))
	}
	return doc.may(user, action, o) && doc.listed(user, action, o)
}

func pick(rnd *rand.Rand, from ...string) string { return from[rnd.IntN(len(from))] }

func randomRows(rnd *rand.Rand) []map[string]string {
	list := []map[string]string{}
	stars := rnd.IntN(3) == 0 // mostly names "*": hosts and logins have to be the index
	n := rnd.IntN(8)
	if rnd.IntN(4) == 0 {
		n += 60
	}
	for range n {
		r := map[string]string{
			"grp":    pick(rnd, "1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "2", "NOT", "not"),
			"type":   pick(rnd, "*", "JOBS", "jobs", "JOBF", "FOLD", "LOGIN", "JOBS, FOLD", "VARA", "", "*"),
			"name":   pick(rnd, "*", "a", "B", "a*", "*b", "?", "ä*", "a,B", "*a*", "ab?", "", ",", " a , *B", `\P\*`, `\P*`, `\p\`, `\`, `\*`, "L*", "*, a"),
			"host":   pick(rnd, "", "", "", "*", "h", "H*", "h,I", "?"),
			"login":  pick(rnd, "", "", "", "*", "L1", "l*", ",", "*1"),
			"rights": pick(rnd, "RWXDCSPML", "RWX", "X", "rx", "W", "R", ""),
		}
		if stars && rnd.IntN(10) > 0 {
			r["name"], r["host"], r["login"] = "*", pick(rnd, "h", "i", "j", "k", ""), pick(rnd, "L1", "L2", "l3", "")
		}
		if rnd.IntN(8) == 0 {
			r["file_src"] = pick(rnd, "/d/*", `c:\T*`, "*.txt", "*", `\\s\*`)
			r["host_dst"], r["login_dst"] = pick(rnd, "", "h", "*"), pick(rnd, "", "l*")
			r["file_dst"] = pick(rnd, "", "/d/?", "c:/t/*")
		}
		if strings.EqualFold(r["grp"], "NOT") && rnd.IntN(2) == 0 {
			r["name"] = pick(rnd, "b", `\P\X`, "*Q")
		}
		list = append(list, r)
	}
	return list
}

func randomDoc(rnd *rand.Rand) plainDoc {
	doc := plainDoc{"automic", pick(rnd, "all", "type"), map[string]plainUser{}, map[string]plainUser{}, map[string]plainObject{}}
	for _, g := range []string{"G", "H"} {
		doc.Groups[g] = plainUser{Rows: randomRows(rnd)}
	}
	for _, u := range []string{"u1", "u2"} {
		user := plainUser{Rows: randomRows(rnd), Groups: []string{}}
		for g := range doc.Groups {
			if rnd.IntN(3) == 0 {
				user.Groups = append(user.Groups, g)
			}
		}
		doc.Users[u] = user
	}
	if rnd.IntN(3) == 0 {
		doc.Objects["jobs/A"] = plainObject{map[string]string{"u1": "x", "G": "RW"}}
		doc.Objects[`FOLD/\P`] = plainObject{map[string]string{"u2": "RW"}}
	}
	return doc
}

func randomQuestion(rnd *rand.Rand) (action string, o map[string]string) {
	names := []string{"a", "A", "b", "ab", "abc", "Ä1", "q", "l1"}
	folders := []string{`\`, `\P`, `\p\`, `\P\X`, `\P\X\Y`, `\PX`, `\Q`}
	switch action = pick(rnd, "R", "W", "X", "X", "X", "D", "L", "launch", "launch", "create", "delete_link"); action {
	case "launch":
		return action, map[string]string{"name": pick(rnd, names...), "host": pick(rnd, "h", "I", "j", "x"), "login": pick(rnd, "L1", "l2", "x")}
	case "create":
		return action, map[string]string{"type": pick(rnd, "JOBS", "VARA"), "template": pick(rnd, names...), "folder": pick(rnd, folders...)}
	case "delete_link":
		return action, map[string]string{"folder": pick(rnd, folders...)}
	}
	o = map[string]string{"type": pick(rnd, "JOBS", "JOBS", "jobs", "JOBF", "FOLD", "LOGIN", "VARA", "JSCH", "REPORT", "NONE"), "name": pick(rnd, names...)}
	if o["type"] == "FOLD" {
		o["name"] = pick(rnd, folders...)
	}
	for c, values := range map[string][]string{"host": {"H", "i", "k", "x", ""}, "login": {"l1", "L3", "x"}, "host_dst": {"h", "x"}, "login_dst": {"L", "x"},
		"file_src": {"/d/a.txt", "/D/a", `C:\t\a.TXT`, `c:/tt`, `\\S\x`, "/d/../x", "x.txt"}, "file_dst": {"/d/a", `c:\T\b`, "C:.."}} {
		if rnd.IntN(2) == 0 {
			o[c] = pick(rnd, values...)
		}
	}
	return action, o
}

// soak returns how many random documents to try, and the dice: a fixed slice
// in an ordinary run, a million requests of any seed in "make soak".
func soak(t *testing.T, usual int) (documents int, rnd *rand.Rand) {
	t.Helper()
	if os.Getenv("BATCHWARDEN_SOAK") == "" {
		return usual, rand.New(rand.NewPCG(1, 2))
	}
	seed, err := strconv.ParseUint(os.Getenv("BATCHWARDEN_SEED"), 10, 64)
	if err != nil {
		t.Fatalf("BATCHWARDEN_SEED: %v", err)
	}
	return 25_000, rand.New(rand.NewPCG(seed, seed))
}

// TestSoakAgainstPlainEvaluator compares the compiled engine with the plain
// one on random documents, and applies what Explain proposes for each denial.
func TestSoakAgainstPlainEvaluator(t *testing.T) {
	documents, rnd := soak(t, 400)
	allowed, fixed, unfixable := 0, 0, 0
	for range documents {
		doc := randomDoc(rnd)
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		p, err := automic.Parse("d", text)
		if err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		for range 40 {
			user := pick(rnd, "u1", "u1", "u2", "u2", "stranger")
			action, o := randomQuestion(rnd)
			q, _ := json.Marshal(map[string]any{"subject": map[string]string{"user": user}, "action": action, "object": o})
			r, err := policy.ParseRequest(q)
			if err != nil {
				t.Fatal(err)
			}
			d, want := p.Decide(&r), doc.allowed(user, action, o)
			if d.Allowed != want {
				t.Fatalf("%s\n%s\ngot %v by %s, want %v", text, q, d.Allowed, d.Rule, want)
			}
			e, trace := p.Explain(&r)
			if e.Allowed != d.Allowed || e.Rule != d.Rule || e.Reason != d.Reason || (trace.Fix == nil) != (d.Allowed || d.Code == policy.Invalid) {
				t.Fatalf("%s\n%s\n%+v, explained %v", text, q, d, trace)
			}
			switch {
			case d.Allowed:
				allowed++
			case trace.Fix == nil || trace.Fix.Place == "":
				unfixable++
			default:
				fixed++
				checkFix(t, doc, user, action, o, trace)
			}
		}
	}
	t.Logf("%d allowed, %d denied with a single grant that helps, %d without", allowed, fixed, unfixable)
	if allowed < 1000 || fixed < 1000 || unfixable < 500 {
		t.Error("the random documents no longer reach all outcomes")
	}
}

// TestLargeAgainstPlainEvaluator has so many rows that every index is in use.
func TestLargeAgainstPlainEvaluator(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	word := func() string { return string(rune('a'+rnd.IntN(20))) + string(rune('a'+rnd.IntN(5))) }
	doc := plainDoc{"automic", "all", map[string]plainUser{}, map[string]plainUser{}, map[string]plainObject{}}
	list := []map[string]string{}
	for range 3000 {
		r := map[string]string{"grp": pick(rnd, "1", "1", "1", "2", "3"), "type": pick(rnd, "JOBS", "*"), "rights": pick(rnd, "X", "RX", "W")}
		r["name"] = pick(rnd, "*", word(), word()+"*", "*"+word(), word()+"?", word()+","+word()+"*", word()+word(), "*"+word()+"*")
		r["host"] = pick(rnd, "", "*", word(), word()+"*", word()+","+word())
		r["login"] = pick(rnd, "", word(), word()+","+word(), "?"+word())
		if rnd.IntN(60) == 0 {
			r["grp"] = "NOT"
			r["host"] = word()
		}
		list = append(list, r)
	}
	doc.Users["u1"] = plainUser{Rows: list}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	p, err := automic.Parse("d", text)
	if err != nil {
		t.Fatal(err)
	}
	allowed := 0
	for range 400 {
		o := map[string]string{"type": "JOBS", "name": pick(rnd, word(), word()+word(), word()+"z"), "host": pick(rnd, "", word(), word()+"x"), "login": pick(rnd, "", word(), "z"+word())}
		q, _ := json.Marshal(map[string]any{"subject": map[string]string{"user": "u1"}, "action": "X", "object": o})
		r, err := policy.ParseRequest(q)
		if err != nil {
			t.Fatal(err)
		}
		d, want := p.Decide(&r), doc.allowed("u1", "X", o)
		if d.Allowed != want {
			t.Fatalf("%s\ngot %v by %s %s, want %v", q, d.Allowed, d.Rule, d.Reason, want)
		}
		if d.Allowed {
			allowed++
		}
	}
	t.Logf("%d of 400 allowed", allowed)
	if allowed < 40 || allowed > 360 {
		t.Error("the random requests no longer have both answers")
	}
}

// checkFix puts in what the trace proposes and asks the plain evaluator.
func checkFix(t *testing.T, doc plainDoc, user, action string, o map[string]string, trace *policy.Trace) {
	t.Helper()
	fixed := doc
	if id, ok := strings.CutPrefix(trace.Fix.Place, "objects."); ok {
		var rights string
		if err := json.Unmarshal(trace.Fix.Value, &rights); err != nil {
			t.Fatal(err)
		}
		fixed.Objects = map[string]plainObject{strings.TrimSuffix(id, ".access."+user): {map[string]string{user: rights}}}
	} else {
		var row map[string]string
		if err := json.Unmarshal(trace.Fix.Value, &row); err != nil {
			t.Fatal(err)
		}
		u := doc.Users[user]
		u.Rows = append(slices.Clone(u.Rows), row)
		fixed.Users = map[string]plainUser{user: u}
	}
	if !fixed.allowed(user, action, o) {
		text, _ := json.Marshal(doc)
		t.Fatalf("%s\nstill denied:\n%s", text, trace)
	}
}

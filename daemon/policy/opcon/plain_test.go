package opcon_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/opcon"
	"batchwarden/daemon/policy/policytest"
)

// plainDoc is a document as it is written; allowed reads the rules off it
// one by one, slowly and plainly.
type plainDoc struct {
	Model string               `json:"model"`
	Roles map[string]plainRole `json:"roles"`
	Users map[string]plainUser `json:"users"`
	Host  plainHost            `json:"host"`
}

type plainRole struct {
	BatchUsers map[string][]string `json:"batch_users,omitempty"`
	Machines   *[]string           `json:"machines,omitempty"`
	Functions  []string            `json:"functions,omitempty"`
}

type plainUser struct {
	Roles []string `json:"roles"`
}

type plainHost struct {
	Black []string `json:"black_list"`
	White []string `json:"white_list"`
}

func (doc plainDoc) allowed(r policy.Request) bool {
	o := r.Object
	windowsLike := o.Platform == "windows" || o.Platform == "sql"
	same := func(a string) bool { // OC13
		return a == o.BatchUser || windowsLike && strings.EqualFold(a, o.BatchUser)
	}
	if !slices.Contains([]string{"windows", "sql", "unix", "ibmi", "mcp", "openvms", "zos"}, o.Platform) { // OC2
		return false
	}
	names := append(slices.Clone(doc.Users[r.Subject.User].Roles), r.Subject.Roles...)
	ocadm, keeper, granted, restricted, here := false, false, false, false, false
	for _, name := range names {
		ocadm = ocadm || name == "Role_ocadm"
		role := doc.Roles[name] // OC16: an unknown one is empty
		keeper = keeper || slices.Contains(role.Functions, "AllAdministrativeFunctions") || slices.Contains(role.Functions, "AllFunctionPrivileges")
		granted = granted || slices.ContainsFunc(role.BatchUsers[o.Platform], same)
		if role.Machines != nil {
			restricted = true
			here = here || slices.Contains(*role.Machines, o.Machine)
		}
	}
	switch r.Action {
	case "create", "edit", "delete":
		reserved := windowsLike && strings.EqualFold(o.BatchUser, "use service account") ||
			(o.Platform == "mcp" || o.Platform == "ibmi") && o.BatchUser == "*" // OC3
		if reserved || !ocadm && !keeper { // OC4
			return false
		}
		return r.Action != "delete" || o.References == 0 // OC9
	case "launch":
		if slices.ContainsFunc(doc.Host.Black, same) { // OC14
			return false
		}
		if len(doc.Host.White) > 0 && !slices.ContainsFunc(doc.Host.White, same) {
			return false
		}
		machineOK := o.Given&policy.MemberMachine == 0 || !restricted || here // OC8
		return ocadm || granted && machineOK
	}
	return ocadm || granted // OC5, OC6
}

var (
	universe = map[string][]string{
		"unix":    {"users/a", "users/A", "users/b", "g/a"},
		"windows": {`C\a`, `C\A`, `c\b`, "use service account", "USE SERVICE ACCOUNT"},
		"sql":     {`C\a`, `c\A`},
		"ibmi":    {"*", "OPER"},
		"zos":     {"A", "B"},
	}
	universePlatforms = []string{"unix", "windows", "sql", "ibmi", "zos"}
	universeRoles     = []string{"r1", "r2", "r3", "r4", "Role_ocadm"}
	universeMachines  = []string{"m1", "m2", "m3"}
)

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

func some(rnd *rand.Rand, from []string) []string {
	list := []string{}
	for _, s := range from {
		if rnd.IntN(3) == 0 {
			list = append(list, s)
		}
	}
	return list
}

func randomDoc(rnd *rand.Rand) plainDoc {
	doc := plainDoc{Model: "opcon", Roles: map[string]plainRole{}, Users: map[string]plainUser{}, Host: plainHost{[]string{}, []string{}}}
	for _, name := range universeRoles {
		if rnd.IntN(4) == 0 {
			continue
		}
		role := plainRole{BatchUsers: map[string][]string{}, Functions: []string{}}
		for _, p := range universePlatforms {
			role.BatchUsers[p] = some(rnd, universe[p])
		}
		if rnd.IntN(2) == 0 {
			machines := some(rnd, universeMachines)
			role.Machines = &machines
		}
		if rnd.IntN(4) == 0 {
			role.Functions = append(role.Functions, pick(rnd, []string{"AllAdministrativeFunctions", "AllFunctionPrivileges", "Else"}))
		}
		doc.Roles[name] = role
	}
	for _, user := range []string{"u1", "u2", "u3"} {
		u := plainUser{[]string{}}
		for _, role := range some(rnd, universeRoles) {
			if _, ok := doc.Roles[role]; (ok || role == "Role_ocadm") && (role != "Role_ocadm" || rnd.IntN(3) == 0) {
				u.Roles = append(u.Roles, role)
			}
		}
		doc.Users[user] = u
	}
	if rnd.IntN(3) == 0 {
		doc.Host.Black = some(rnd, universe[pick(rnd, universePlatforms)])
	}
	if rnd.IntN(4) == 0 {
		doc.Host.White = some(rnd, universe[pick(rnd, universePlatforms)])
	}
	return doc
}

func randomRequest(rnd *rand.Rand) policy.Request {
	r := policy.Request{Action: pick(rnd, []string{"use", "launch", "launch", "launch", "create", "edit", "delete"})}
	r.Subject.User = pick(rnd, []string{"u1", "u2", "u3", "unknown", ""})
	if rnd.IntN(3) == 0 {
		r.Subject.Roles = some(rnd, append([]string{"unknown"}, universeRoles[:4]...))
	}
	p := pick(rnd, universePlatforms)
	r.Object = policy.Object{Given: policy.MemberPlatform | policy.MemberBatchUser, Platform: p, BatchUser: pick(rnd, universe[p])}
	if rnd.IntN(50) == 0 {
		r.Object.Platform = "linux"
	}
	if rnd.IntN(3) > 0 {
		r.Object.Given |= policy.MemberMachine
		r.Object.Machine = pick(rnd, append(universeMachines, "m9"))
	}
	if rnd.IntN(3) == 0 {
		r.Object.Given |= policy.MemberReferences
		r.Object.References = rnd.IntN(2)
	}
	return r
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
	documents, rnd := soak(t, 300)
	allowed, fixed, unfixable := 0, 0, 0
	for range documents {
		doc := randomDoc(rnd)
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		p, err := opcon.Parse("d", text)
		if err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		for range 40 {
			r := randomRequest(rnd)
			d, want := p.Decide(&r), doc.allowed(r)
			if d.Allowed != want {
				q, _ := json.Marshal(r)
				t.Fatalf("%s\n%s\ngot %v by %s, want %v", text, q, d.Allowed, d.Rule, want)
			}
			if d.Allowed {
				allowed++
				continue
			}
			e, trace := p.Explain(&r)
			switch {
			case e.Rule != d.Rule || trace.Fix == nil:
				t.Fatalf("%+v, explained %+v, %v", d, e, trace)
			case trace.Fix.Place == "":
				unfixable++
			default:
				fixed++
				checkFix(t, text, r, trace)
			}
		}
	}
	t.Logf("%d allowed, %d denied with a single grant that helps, %d without", allowed, fixed, unfixable)
	if allowed < 1000 || fixed < 1000 || unfixable < 100 {
		t.Error("the random documents no longer reach all outcomes")
	}
}

// checkFix appends the proposed value at its place and decides again.
func checkFix(t *testing.T, text []byte, r policy.Request, trace *policy.Trace) {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	at := doc
	steps := strings.Split(trace.Fix.Place, ".")
	for _, s := range steps[:len(steps)-1] {
		next, ok := at[s].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[s] = next
		}
		at = next
	}
	last := steps[len(steps)-1]
	list, _ := at[last].([]any)
	at[last] = append(list, trace.Fix.Value)
	fixed, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	p, err := opcon.Parse("fixed", fixed)
	if err != nil {
		t.Fatalf("%s\n%v", fixed, err)
	}
	if d := p.Decide(&r); !d.Allowed {
		q, _ := json.Marshal(r)
		t.Fatalf("%s\n%s\nstill denied by %s:\n%s", fixed, q, d.Rule, trace)
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("grants=%d", n), func(b *testing.B) {
			role := plainRole{BatchUsers: map[string][]string{}}
			for i := range n {
				role.BatchUsers["unix"] = append(role.BatchUsers["unix"], fmt.Sprintf("users/u%d", i))
			}
			text, _ := json.Marshal(plainDoc{Model: "opcon", Roles: map[string]plainRole{"ops": role}, Users: map[string]plainUser{"u": {[]string{"ops"}}}, Host: plainHost{[]string{}, []string{}}})
			p, err := opcon.Parse("d", text)
			if err != nil {
				b.Fatal(err)
			}
			r := policytest.Request(b, req("u", "launch", "unix", fmt.Sprintf("users/u%d", n-1), `,"machine":"m"`))
			b.ReportAllocs()
			for b.Loop() {
				if !p.Decide(r).Allowed {
					b.Fatal("denied")
				}
			}
		})
	}
}

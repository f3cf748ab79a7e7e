package admin_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"batchwarden/vault/admin"
)

func TestInit(t *testing.T) {
	b := empty(t)
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.Init(t.Context()) })

	other, err := admin.New(admin.Config{Address: b.server.Address, Token: b.server.RootToken, CAFile: b.server.CAFile, Mount: "approle-documents"})
	must(t, err)
	if _, err := other.Init(t.Context()); !errors.Is(err, admin.ErrTaken) {
		t.Errorf("a second installation in one Vault: got %v, want %v", err, admin.ErrTaken)
	}
	must(t, b.server.Root().Sys().PutPolicyWithContext(t.Context(), "batchwarden-machine", `path "x" { capabilities = ["read"] }`))
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.Init(t.Context()) }) // what somebody changed comes back
}

func TestInitTakesNobodysPlace(t *testing.T) {
	b := empty(t)
	_, err := b.server.Root().Logical().WriteWithContext(t.Context(), "sys/mounts/batch", map[string]any{"type": "kv", "options": map[string]string{"version": "1"}})
	must(t, err)
	_, err = b.admin.Init(t.Context())
	want(t, err, admin.ErrTaken)
}

func TestMachineReadsWhatItIsEntitledTo(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	var first admin.Credentials
	b.change(func(a *admin.Admin) ([]admin.Step, error) {
		c, steps, err := a.AddMachine(ctx, admin.Machine{Name: "db01", Platforms: []string{"unix", "windows"}, Groups: []string{"pay", "FIN"}, CIDRs: []string{"127.0.0.1", "10.1.0.0/16"}})
		if c.WrappedSecretID != "" {
			first = c
		}
		return steps, err
	})
	if first.RoleID == "" || !first.Expires.After(time.Now()) {
		t.Fatalf("credentials: got %+v", first)
	}
	b.addMachine(admin.Machine{Name: "db02", Platforms: []string{"windows"}})
	for _, scope := range []string{"machines/db01", "machines/db02", "groups/pay", "groups/FIN", "groups/fin", "platforms/unix", "platforms/windows", "platforms/zos"} {
		_, err := b.admin.PutBatchUser(ctx, scope, "u", map[string]any{"username": "u", "kind": "none"}, false)
		if scope == "groups/FIN" {
			want(t, err, admin.ErrInUse) // db01 is in groups/pay too
			must(t, b.server.PutDocument(ctx, scope+"/batch_users/u", user("p")))
			continue
		}
		must(t, err)
	}
	token := b.login(first)
	b.reads(token, map[string]int{
		"machines/db01/batch_users/u": 200, "groups/pay/batch_users/u": 200, "groups/FIN/batch_users/u": 200,
		"platforms/unix/batch_users/u": 200, "platforms/windows/batch_users/u": 200,
		"machines/db02/batch_users/u": 403, "groups/fin/batch_users/u": 403, "platforms/zos/batch_users/u": 403,
	})
	if _, err := b.unwrap(ctx, first.WrappedSecretID); err == nil {
		t.Error("a wrapped secret_id was unwrapped twice")
	}
	got, err := b.admin.Machine(ctx, "db01")
	must(t, err)
	wanted := admin.Machine{Name: "db01", Platforms: []string{"unix", "windows"}, Groups: []string{"FIN", "pay"},
		TokenTTL: time.Hour, TokenMax: 240 * time.Hour, CIDRs: got.CIDRs}
	if !reflect.DeepEqual(got, wanted) || len(got.CIDRs) != 2 {
		t.Errorf("got %+v, want %+v", got, wanted)
	}
	all, err := b.admin.Machines(ctx)
	must(t, err)
	if len(all) != 2 || all[0].Name != "db01" || all[1].Name != "db02" || all[1].Platforms[0] != "windows" {
		t.Errorf("machines: got %+v", all)
	}
	// Fewer groups hold at once, for the token that exists.
	b.change(func(a *admin.Admin) ([]admin.Step, error) {
		_, steps, err := a.AddMachine(ctx, admin.Machine{Name: "db01", Platforms: []string{"unix"}, Groups: []string{"pay"}, TokenTTL: 2 * time.Hour})
		return steps, err
	})
	b.reads(token, map[string]int{"groups/pay/batch_users/u": 200, "groups/FIN/batch_users/u": 403, "platforms/windows/batch_users/u": 403})
}

func TestMachineKeepsPoliciesOfOthers(t *testing.T) {
	b := start(t)
	b.addMachine(admin.Machine{Name: "a", Platforms: []string{"unix"}})
	root := b.server.Root().Logical()
	at := "identity/entity/name/batchwarden-machine-a"
	_, err := root.WriteWithContext(t.Context(), at, map[string]any{"policies": []string{"batchwarden-machine", "theirs"}, "metadata": map[string]string{"machine": "a", "platform": "unix", "rack": "7"}})
	must(t, err)
	b.addMachine(admin.Machine{Name: "a", Platforms: []string{"unix"}, Groups: []string{"pay"}})
	s, err := root.ReadWithContext(t.Context(), at)
	must(t, err)
	if got := fmt.Sprint(s.Data["policies"], s.Data["metadata"]); got != "[batchwarden-group-pay batchwarden-machine theirs] map[machine:a platform:unix rack:7]" {
		t.Errorf("got %s", got)
	}
}

func TestMachineWhoseRoleIsMadeAnew(t *testing.T) {
	b := start(t)
	m := admin.Machine{Name: "a", Platforms: []string{"unix"}}
	old := b.addMachine(m)
	must(t, b.server.Delete(t.Context(), "auth/approle/role/a"))
	var c admin.Credentials
	b.change(func(a *admin.Admin) ([]admin.Step, error) {
		got, steps, err := a.AddMachine(t.Context(), m)
		if got.WrappedSecretID != "" {
			c = got
		}
		return steps, err
	})
	if c.RoleID == old.RoleID {
		t.Fatal("the same role_id")
	}
	must(t, b.server.PutDocument(t.Context(), "machines/a/batch_users/u", user("p")))
	b.reads(b.login(c), map[string]int{"machines/a/batch_users/u": 200})
}

func TestNamesThatAreTakenOrNone(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	unix := []string{"unix"}
	b.addMachine(admin.Machine{Name: "db01", Platforms: unix, Groups: []string{"pay"}})
	_, err := b.server.Root().Logical().WriteWithContext(ctx, "auth/approle/role/web", map[string]any{"token_policies": "x"})
	must(t, err)
	for _, c := range []struct {
		m    admin.Machine
		want error
	}{
		{admin.Machine{Name: "DB01", Platforms: unix}, admin.ErrTaken},
		{admin.Machine{Name: "web", Platforms: unix}, admin.ErrTaken},
		{admin.Machine{Name: "db02", Platforms: unix, Groups: []string{"PAY"}}, admin.ErrTaken},
		{admin.Machine{Name: "", Platforms: unix}, admin.ErrInvalid},
		{admin.Machine{Name: "..", Platforms: unix}, admin.ErrInvalid},
		{admin.Machine{Name: ".x", Platforms: unix}, admin.ErrInvalid},
		{admin.Machine{Name: "a/b", Platforms: unix}, admin.ErrInvalid},
		{admin.Machine{Name: "a*", Platforms: unix}, admin.ErrInvalid},
		{admin.Machine{Name: "+", Platforms: unix}, admin.ErrInvalid},
		{admin.Machine{Name: strings.Repeat("a", 62), Platforms: unix}, admin.ErrInvalid},
		{admin.Machine{Name: "db03"}, admin.ErrInvalid},
		{admin.Machine{Name: "db03", Platforms: []string{"linux"}}, admin.ErrInvalid},
		{admin.Machine{Name: "db03", Platforms: unix, Groups: []string{"a b"}}, admin.ErrInvalid},
		{admin.Machine{Name: "db03", Platforms: unix, TokenTTL: -time.Second}, admin.ErrInvalid},
		{admin.Machine{Name: "db03", Platforms: unix, TokenTTL: time.Hour, TokenMax: time.Minute}, admin.ErrInvalid},
		{admin.Machine{Name: "db03", Platforms: unix, CIDRs: []string{"10.0.0.0/33"}}, admin.ErrInvalid},
	} {
		if w := b.writes(func() { _, _, err = b.as(b.server.RootToken).AddMachine(ctx, c.m) }); len(w) > 0 {
			t.Errorf("%+v: wrote %q", c.m, w)
		}
		want(t, err, c.want)
	}
}

func TestRotateMachine(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	c := b.addMachine(admin.Machine{Name: "a", Platforms: []string{"unix"}})
	old, err := b.unwrap(ctx, c.WrappedSecretID)
	must(t, err)
	var steps []admin.Step
	if w := b.writes(func() { _, steps, err = b.dry().RotateMachine(ctx, "a", 0, false) }); err != nil || len(w) > 0 || len(steps) != 1 {
		t.Errorf("dry: %v, %v, wrote %q", steps, err, w)
	}
	c, _, err = b.admin.RotateMachine(ctx, "a", 10*time.Minute, false)
	must(t, err)
	if life := time.Until(c.Expires); life > 10*time.Minute || life < 8*time.Minute {
		t.Errorf("the wrapped secret_id can be fetched for %v", life)
	}
	next, err := b.unwrap(ctx, c.WrappedSecretID)
	must(t, err)
	for _, id := range []string{old, next} {
		_, err := b.server.Login(ctx, c.RoleID, id)
		must(t, err)
	}
	b.change(func(a *admin.Admin) ([]admin.Step, error) {
		_, steps, err := a.RotateMachine(ctx, "a", 0, true)
		return steps, err
	})
	if _, err := b.server.Login(ctx, c.RoleID, old); err == nil {
		t.Error("the old secret_id is good after finish")
	}
	_, err = b.server.Login(ctx, c.RoleID, next)
	must(t, err)
	_, _, err = b.admin.RotateMachine(ctx, "b", 0, false)
	want(t, err, admin.ErrNotFound)
}

func TestRemovedMachineReadsTheMark(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	m := admin.Machine{Name: "a", Platforms: []string{"unix"}}
	token := b.login(b.addMachine(m))
	_, err := b.admin.PutBatchUser(ctx, "machines/a", "u", user("p"), false)
	must(t, err)
	_, err = b.admin.PutPolicy(ctx, "machines/a", "opcon", "opcon", bigPolicy(500<<10), 0)
	must(t, err)
	_, err = b.admin.RemoveMachine(ctx, "a", true)
	want(t, err, admin.ErrInUse) // the mark comes first

	steps := b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.RemoveMachine(ctx, "a", false) })
	if i := slices.IndexFunc(steps, func(s admin.Step) bool { return s.Path == "batch/data/machines/a/index" }); i != 0 {
		t.Errorf("the mark is step %d of %v, want the first", i, steps)
	}
	b.reads(token, map[string]int{"machines/a/index": 200, "machines/a/batch_users/u": 404, "machines/a/policies/opcon": 404})
	if doc := b.at("machines/a/index"); doc["removed"] != true {
		t.Errorf("the mark: got %v", doc)
	}
	if _, _, err := b.admin.RotateMachine(ctx, "a", 0, false); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("rotate while it is removed: got %v", err)
	}
	// What is put meanwhile does not take the mark away.
	steps, err = b.admin.PutBatchUser(ctx, "machines/a", "u", user("q"), false)
	must(t, err)
	if !slices.ContainsFunc(steps, func(s admin.Step) bool { return s.Verb == admin.Warning }) || b.at("machines/a/index")["removed"] != true {
		t.Errorf("a batch user of a removed machine: %v, index %v", steps, b.at("machines/a/index"))
	}
	ms, err := b.admin.Machines(ctx)
	must(t, err)
	if len(ms) != 1 || !ms[0].Removed {
		t.Errorf("machines: got %+v", ms)
	}
	// Added anew it is a machine like any other.
	b.change(func(a *admin.Admin) ([]admin.Step, error) {
		_, steps, err := a.AddMachine(ctx, m)
		return steps, err
	})
	if doc := b.at("machines/a/index"); doc["removed"] != nil || fmt.Sprint(doc["batch_users"]) != "map[u:2]" {
		t.Errorf("the index of a machine that was taken back: %v", doc)
	}
	_, err = b.admin.RemoveMachine(ctx, "a", false)
	must(t, err)
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.RemoveMachine(ctx, "a", true) })
	b.reads(token, map[string]int{"machines/a/index": 403})
	left, err := b.server.Root().Logical().ListWithContext(ctx, "batch/metadata/machines")
	must(t, err)
	if left != nil {
		t.Errorf("left of the machine: %v", left.Data)
	}
	_, err = b.admin.RemoveMachine(ctx, "a", false)
	want(t, err, admin.ErrNotFound)
}

func TestManyMachinesAndOneThatFails(t *testing.T) {
	b := start(t)
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("m%02d", i))
	}
	names = append(names, "no name")
	var mu sync.Mutex
	var bad []string
	admin.Each(t.Context(), names, func(ctx context.Context, n string) {
		c, _, err := b.admin.AddMachine(ctx, admin.Machine{Name: n, Platforms: []string{"unix"}, Groups: []string{"pay"}})
		mu.Lock()
		defer mu.Unlock()
		if err != nil || c.WrappedSecretID == "" {
			bad = append(bad, n)
		}
	})
	if !slices.Equal(bad, []string{"no name"}) {
		t.Errorf("failed: %q", bad)
	}
	groups, err := b.admin.Groups(t.Context())
	must(t, err)
	if len(groups) != 1 || groups[0].Name != "pay" || !slices.Equal(groups[0].Machines, names[:40]) {
		t.Errorf("groups: got %+v", groups)
	}
}

package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"batchwarden/vault/admin"
)

func TestBatchUser(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	scope := "machines/db01"
	put := func(doc map[string]any) []admin.Step {
		t.Helper()
		return b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.PutBatchUser(ctx, scope, "payroll", doc, false) })
	}
	put(map[string]any{"username": "pay", "password": "one", "names": map[string]string{"opcon": "users/payroll"}, "x_ticket": 1234567890123})
	index := func(want string) {
		t.Helper()
		if got := fmt.Sprint(b.at(scope + "/index")["batch_users"]); got != want {
			t.Errorf("index: got %s, want %s", got, want)
		}
	}
	index("map[payroll:1]")
	steps := put(map[string]any{"username": "pay2", "x_ticket": 1234567890123})
	for _, s := range steps {
		if strings.Contains(s.String(), "one") {
			t.Errorf("a step with the password: %v", s)
		}
	}
	index("map[payroll:2]")
	if doc := b.at(scope + "/batch_users/payroll"); doc["password"] != "one" || doc["names"] != nil || fmt.Sprint(doc["x_ticket"]) != "1234567890123" {
		t.Errorf("got %v, want the old password and nothing else that was left out", doc)
	}
	b.change(func(a *admin.Admin) ([]admin.Step, error) {
		return a.SetPassword(ctx, scope, "payroll", []byte("two\"\\é"))
	})
	index("map[payroll:3]")
	if doc := b.at(scope + "/batch_users/payroll"); doc["password"] != "two\"\\é" || doc["username"] != "pay2" || fmt.Sprint(doc["x_ticket"]) != "1234567890123" {
		t.Errorf("got %v, want only the password changed", doc)
	}
	users, err := b.admin.BatchUsers(ctx, scope)
	must(t, err)
	if len(users) != 1 || users[0].Version != 3 || !users[0].HasPassword || users[0].Document["password"] != nil || users[0].Document["username"] != "pay2" {
		t.Errorf("batch users: got %+v", users)
	}
	put(map[string]any{"username": "pay2", "kind": "none"}) // and its password goes
	if doc := b.at(scope + "/batch_users/payroll"); doc["password"] != nil {
		t.Errorf("got %v, want no password", doc)
	}
	_, err = b.admin.SetPassword(ctx, scope, "payroll", []byte("x"))
	want(t, err, admin.ErrInvalid)
	put(map[string]any{"username": "pay2", "source": map[string]string{"path": "ldap/static-cred/payroll"}})
	_, err = b.admin.SetPassword(ctx, scope, "payroll", []byte("x"))
	want(t, err, admin.ErrInvalid)
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.DeleteBatchUser(ctx, scope, "payroll", false) })
	index("<nil>")
	users, err = b.admin.BatchUsers(ctx, scope)
	must(t, err)
	if len(users) != 0 {
		t.Errorf("after it was deleted: %+v", users)
	}
	_, err = b.admin.SetPassword(ctx, scope, "payroll", []byte("x"))
	want(t, err, admin.ErrNotFound)
	put(user("again"))
	index("map[payroll:6]")
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.DeleteBatchUser(ctx, scope, "payroll", true) })
	put(user("anew")) // the versions begin anew, and so does the hint
	index("map[payroll:1]")
	scopes, err := b.admin.Scopes(ctx)
	must(t, err)
	if fmt.Sprint(scopes) != "[machines/db01]" {
		t.Errorf("scopes: %v", scopes)
	}
}

func TestPasswordForAWholePlatform(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	at := "platforms/unix"
	_, err := b.admin.PutBatchUser(ctx, at, "u", user("p"), false)
	want(t, err, admin.ErrShared)
	_, err = b.admin.PutBatchUser(ctx, at, "u", map[string]any{"username": "u", "kind": "none"}, false)
	must(t, err)
	_, err = b.admin.PutBatchUser(ctx, at, "u", user("p"), false)
	want(t, err, admin.ErrShared)
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.PutBatchUser(ctx, at, "u", user("p"), true) })
	b.change(func(a *admin.Admin) ([]admin.Step, error) { // it is shared already
		return a.PutBatchUser(ctx, at, "u", map[string]any{"username": "u", "launch": false}, false)
	})
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.SetPassword(ctx, at, "u", []byte("q")) })
}

func TestBatchUserThatNoMachineWouldTake(t *testing.T) {
	b := start(t)
	for at, doc := range map[string]map[string]any{
		"machines/a u":      {"password": "p"},
		"machines/a nopw":   {"username": "u"},
		"machines/a ../x":   user("p"),
		"machines/a a/b":    user("p"),
		"machines/.. u":     user("p"),
		"machines/a/b u":    user("p"),
		"platforms/linux u": user("p"),
		"machine/a u":       user("p"),
		"a u":               user("p"),
	} {
		scope, name, _ := strings.Cut(at, " ")
		if w := b.writes(func() {
			_, err := b.admin.PutBatchUser(t.Context(), scope, name, doc, true)
			want(t, err, admin.ErrInvalid)
		}); len(w) > 0 {
			t.Errorf("%s: wrote %q", at, w)
		}
	}
	for member, value := range map[string]any{
		"username": 1, "password": strings.Repeat("x", 1025), "domain": "a\nb", "platform": "linux", "kind": "x", "launch": "yes", "retrieve": 1,
		"max_stale": "-1h", "expires": "tomorrow", "format": 2, "names": "x", "services": map[string]any{"a": "b"}, "other": true,
		"source": map[string]any{"path": "ldap/x"}, // beside a password
	} {
		doc := user("p-secret")
		doc[member] = value
		err := admin.CheckBatchUser(doc)
		want(t, err, admin.ErrInvalid)
		if err == nil || !strings.Contains(err.Error(), member) && member != "source" || strings.Contains(err.Error(), "p-secret") {
			t.Errorf("%s: got %v", member, err)
		}
	}
	for _, path := range []string{"", "sys/x", "/ldap/x", "ldap//x", "ldap/../x", "ldap/x?y=z", "auth/x", "Identity/x", "ldap/x/"} {
		want(t, admin.CheckBatchUser(map[string]any{"username": "u", "source": map[string]any{"path": path}}), admin.ErrInvalid)
	}
}

// TestTwoAdminsAtOnce lets many change one scope at the same time: what each
// was told is what happened, and in the end the index hints at all of it.
func TestTwoAdminsAtOnce(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	_, err := b.admin.PutBatchUser(ctx, "machines/a", "shared", user("start"), false)
	must(t, err)
	const each = 6
	var mu sync.Mutex
	won := map[string]bool{}
	var wg sync.WaitGroup
	for i := range 4 {
		a := b.as(b.server.RootToken)
		wg.Go(func() {
			for j := range each {
				secret := fmt.Sprintf("pw-%d-%d", i, j)
				_, err := a.SetPassword(ctx, "machines/a", "shared", []byte(secret))
				mu.Lock()
				if err == nil {
					won[secret] = true
				} else {
					want(t, err, admin.ErrConflict)
				}
				mu.Unlock()
				steps, err := a.PutBatchUser(ctx, "machines/a", fmt.Sprintf("own-%d-%d", i, j), user("p"), false)
				if err != nil {
					t.Error(err)
				}
				noWarning(t, steps)
			}
		})
	}
	wg.Wait()
	s, err := b.server.Root().Logical().ReadWithContext(ctx, "batch/data/machines/a/batch_users/shared")
	must(t, err)
	version, _ := s.Data["metadata"].(map[string]any)["version"].(json.Number).Int64()
	if int(version) != len(won)+1 {
		t.Errorf("version %d after %d changes that were said to be made", version, len(won))
	}
	if last := s.Data["data"].(map[string]any)["password"].(string); !won[last] {
		t.Errorf("the password is %q, which nobody was told to have set", last)
	}
	hints := b.at("machines/a/index")["batch_users"].(map[string]any)
	if len(hints) != 4*each+1 || fmt.Sprint(hints["shared"]) != fmt.Sprint(version) {
		t.Errorf("%d hints, shared at %v; want %d, at %d", len(hints), hints["shared"], 4*each+1, version)
	}
}

// TestIndexThatCannotBeWritten: a hint is worth a warning, no more.
func TestIndexThatCannotBeWritten(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	must(t, b.server.Root().Sys().PutPolicyWithContext(ctx, "few", `path "batch/*" { capabilities = ["create","read","update","delete","list"] }
path "batch/data/machines/a/index" { capabilities = ["deny"] }`))
	token, err := b.server.Root().Auth().Token().CreateWithContext(ctx, tokenOf("few"))
	must(t, err)
	steps, err := b.as(token.Auth.ClientToken).PutBatchUser(ctx, "machines/a", "u", user("p"), false)
	must(t, err)
	if len(steps) != 2 || steps[1].Verb != admin.Warning || !strings.Contains(steps[1].Detail, `"batch/data/machines/a/index"`) {
		t.Errorf("steps: got %v", steps)
	}
	if b.at("machines/a/batch_users/u") == nil {
		t.Error("the batch user was not put")
	}
}

func TestReindex(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	for _, n := range []string{"u", "v", "gone"} { // by other means
		must(t, b.server.PutDocument(ctx, "groups/g/batch_users/"+n, user("p")))
	}
	must(t, b.server.DeleteDocument(ctx, "groups/g/batch_users/gone"))
	must(t, b.server.PutDocument(ctx, "groups/g/policies/opcon", map[string]any{"model": "opcon"}))
	must(t, b.server.PutDocument(ctx, "groups/g/index", map[string]any{"x_theirs": "kept", "batch_users": map[string]any{"u": 7, "w": 1}}))
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.Reindex(ctx, "groups/g") })
	got, err := json.Marshal(b.at("groups/g/index"))
	must(t, err)
	if string(got) != `{"batch_users":{"u":1,"v":1},"format":1,"policies":{"opcon":1},"x_theirs":"kept"}` {
		t.Errorf("got %s", got)
	}
	must(t, b.server.PutDocument(ctx, "machines/a/index", map[string]any{"removed": true}))
	_, err = b.admin.Reindex(ctx, "machines/a")
	want(t, err, admin.ErrInUse)
}

func TestCancelledIsNotDone(t *testing.T) {
	b := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if steps, err := b.admin.PutBatchUser(ctx, "machines/a", "u", user("p"), false); err == nil || len(steps) > 0 {
		t.Errorf("got %v, %v", steps, err)
	}
}

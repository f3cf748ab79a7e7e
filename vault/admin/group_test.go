package admin_test

import (
	"fmt"
	"slices"
	"testing"

	"batchwarden/vault/admin"
)

func TestGroups(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	const group = "MOUNT" // a name like any other
	tokens := map[string]string{}
	for _, n := range []string{"a", "b", "c"} {
		tokens[n] = b.login(b.addMachine(admin.Machine{Name: n, Platforms: []string{"unix"}}))
	}
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.AddGroup(ctx, group) })
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.AddGroup(ctx, group, "a", "b") })
	b.change(func(a *admin.Admin) ([]admin.Step, error) {
		return a.PutBatchUser(ctx, "groups/"+group, "u", user("p"), false)
	})
	check := func(status map[string]int) {
		t.Helper()
		for n, want := range status {
			b.reads(tokens[n], map[string]int{"groups/" + group + "/batch_users/u": want})
		}
	}
	check(map[string]int{"a": 200, "b": 200, "c": 403})
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.RemoveGroup(ctx, group, "a") })
	check(map[string]int{"a": 403, "b": 200})
	got, err := b.as(b.server.RootToken).Groups(ctx)
	must(t, err)
	if fmt.Sprint(got) != "[{"+group+" [b]}]" {
		t.Errorf("groups: got %v", got)
	}
	_, err = b.admin.AddGroup(ctx, "mount", "c")
	want(t, err, admin.ErrTaken)
	check(map[string]int{"c": 403})
	steps, err := b.admin.AddGroup(ctx, group, "nobody", "c") // one that is not there does not stop the other
	want(t, err, admin.ErrNotFound)
	if len(steps) == 0 {
		t.Error("no step for c")
	}
	check(map[string]int{"c": 200})
	_, err = b.admin.RemoveGroup(ctx, group)
	want(t, err, admin.ErrInUse) // machines
	_, err = b.admin.RemoveGroup(ctx, group, "b", "c")
	must(t, err)
	_, err = b.admin.RemoveGroup(ctx, group)
	want(t, err, admin.ErrInUse) // a document
	_, err = b.admin.DeleteBatchUser(ctx, "groups/"+group, "u", false)
	must(t, err)
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.RemoveGroup(ctx, group) })
	_, err = b.as(b.server.RootToken).AddGroup(ctx, "mount")
	must(t, err) // free now
}

func TestOneNameInTwoGroupsOfAMachine(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	unix := []string{"unix"}
	b.addMachine(admin.Machine{Name: "both", Platforms: unix, Groups: []string{"g1", "g2"}})
	b.addMachine(admin.Machine{Name: "one", Platforms: unix, Groups: []string{"g3"}})
	put := func(group, name string) error {
		_, err := b.as(b.server.RootToken).PutBatchUser(ctx, "groups/"+group, name, user("p"), false)
		return err
	}
	must(t, put("g1", "u"))
	want(t, put("g2", "u"), admin.ErrInUse)
	must(t, put("g3", "u")) // no machine has g1 and g3
	_, err := b.as(b.server.RootToken).AddGroup(ctx, "g1", "one")
	want(t, err, admin.ErrInUse)
	_, _, err = b.as(b.server.RootToken).AddMachine(ctx, admin.Machine{Name: "new", Platforms: unix, Groups: []string{"g1", "g3"}})
	want(t, err, admin.ErrInUse)
	_, err = b.admin.DeleteBatchUser(ctx, "groups/g1", "u", false)
	must(t, err)
	must(t, put("g2", "u"))
	ms, err := b.admin.Machines(ctx)
	must(t, err)
	if names := fmt.Sprint(ms); slices.ContainsFunc(ms, func(m admin.Machine) bool { return m.Name == "new" }) {
		t.Errorf("machines: %s", names)
	}
}

package admin_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"batchwarden/vault/admin"
)

// policyIn takes one policy out of what "init --print hcl" prints.
func policyIn(t *testing.T, name string) string {
	t.Helper()
	plan, err := admin.Plan("hcl", "", "")
	must(t, err)
	_, rest, found := strings.Cut(plan, "\n# ---- policy "+name+"\n")
	if !found {
		t.Fatalf("no policy %s in the plan:\n%s", name, plan)
	}
	text, _, _ := strings.Cut(rest, "\n# ---- ")
	return text
}

// TestOperatorsPolicyIsEnough does everything with a token that has the printed
// policy of operators and nothing else.
func TestOperatorsPolicyIsEnough(t *testing.T) {
	b := empty(t)
	ctx := t.Context()
	must(t, b.server.Root().Sys().PutPolicyWithContext(ctx, "batchwarden-admin", policyIn(t, "batchwarden-admin")))
	token, err := b.server.Root().Auth().Token().CreateWithContext(ctx, tokenOf("batchwarden-admin"))
	must(t, err)
	a := b.as(token.Auth.ClientToken)
	unix := []string{"unix"}
	do := func(steps []admin.Step, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
		if len(steps) == 0 {
			t.Error("no step")
		}
		noWarning(t, steps)
	}
	do(a.Init(ctx))
	_, steps, err := a.AddMachine(ctx, admin.Machine{Name: "a", Platforms: []string{"unix", "windows"}, Groups: []string{"g", "h"}})
	do(steps, err)
	must(t, b.server.Delete(ctx, "auth/approle/role/a"))
	_, steps, err = a.AddMachine(ctx, admin.Machine{Name: "a", Platforms: unix, Groups: []string{"g", "h"}})
	do(steps, err)
	_, steps, err = a.RotateMachine(ctx, "a", 0, false)
	do(steps, err)
	_, steps, err = a.RotateMachine(ctx, "a", 0, true)
	do(steps, err)
	do(a.AddGroup(ctx, "i", "a"))
	do(a.PutBatchUser(ctx, "groups/g", "u", user("p"), false))
	do(a.SetPassword(ctx, "groups/g", "u", []byte("q")))
	do(a.PutPolicy(ctx, policyScope, "opcon", "opcon", bigPolicy(2<<20), 0))
	nextSecond()
	for range 11 {
		do(a.PutPolicy(ctx, policyScope, "opcon", "opcon", bigPolicy(1000), admin.AnyVersion))
		do(a.PutPolicy(ctx, policyScope, "opcon", "opcon", bigPolicy(2000), admin.AnyVersion))
	}
	for _, look := range []func() error{
		func() error { _, err := a.Machines(ctx); return err },
		func() error { _, err := a.Machine(ctx, "a"); return err },
		func() error { _, err := a.Groups(ctx); return err },
		func() error { _, err := a.Scopes(ctx); return err },
		func() error { _, err := a.BatchUsers(ctx, "groups/g"); return err },
		func() error { _, err := a.Policies(ctx, policyScope); return err },
	} {
		must(t, look())
	}
	must(t, b.server.PutDocument(ctx, "groups/g/batch_users/raw", user("p")))
	do(a.Reindex(ctx, "groups/g"))
	do(a.DeletePolicy(ctx, policyScope, "opcon", true))
	do(a.DeleteBatchUser(ctx, "groups/g", "u", false))
	do(a.DeleteBatchUser(ctx, "groups/g", "raw", true))
	do(a.RemoveGroup(ctx, "g", "a"))
	do(a.RemoveGroup(ctx, "g"))
	do(a.RemoveMachine(ctx, "a", false))
	do(a.RemoveMachine(ctx, "a", true))

	err = b.server.Root().Sys().PutPolicyWithContext(ctx, "batchwarden-admin", `path "batch/data/*" { capabilities = ["read"] }`)
	must(t, err)
	_, err = b.as(token.Auth.ClientToken).PutBatchUser(ctx, "machines/a", "u", user("p"), false)
	want(t, err, admin.ErrForbidden)
	if err == nil || !strings.Contains(err.Error(), `create and update on "batch/data/machines/a/batch_users/u"`) {
		t.Errorf("got %v, want it to name what is missing", err)
	}
}

// TestPoliciesAreTheSameEverywhere holds what the server has after Init, what is
// printed and what is in installer/vault against one another.
func TestPoliciesAreTheSameEverywhere(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	b.addMachine(admin.Machine{Name: "a", Platforms: []string{"unix", "windows"}, Groups: []string{"GROUP"}})
	text, err := os.ReadFile(installed + "/main.tf")
	must(t, err)
	inTerraform := regexp.MustCompile(`(?s)resource "vault_policy" "(\w+)" \{.*?<<-EOT\n(.*?)  EOT\n`).FindAllStringSubmatch(string(text), -1)
	terraform := map[string]string{}
	for _, m := range inTerraform {
		terraform[m[1]] = m[2]
	}
	for resource, c := range map[string]struct{ name, each string }{
		"machine": {"batchwarden-machine", ""}, "group": {"batchwarden-group-GROUP", "GROUP"}, "platform": {"batchwarden-platform-windows", "windows"},
	} {
		server, err := b.server.Root().Sys().GetPolicyWithContext(ctx, c.name)
		must(t, err)
		printed := policyIn(t, c.name)
		tf := strings.NewReplacer("${var.mount}", "batch", "${var.auth_mount}", "approle", "${each.value}", c.each).Replace(terraform[resource])
		for where, other := range map[string]string{"printed": printed, "terraform": tf} {
			if got := rules(other); !slices.Equal(got, rules(server)) || len(got) == 0 {
				t.Errorf("%s %s:\n%q\nwant\n%q", where, c.name, got, rules(server))
			}
		}
	}
	tf := strings.NewReplacer("${var.mount}", "batch", "${var.auth_mount}", "approle").Replace(terraform["admin"])
	if got, want := rules(tf), rules(policyIn(t, "batchwarden-admin")); !slices.Equal(got, want) || len(got) == 0 {
		t.Errorf("terraform, admin: %q, want %q", got, want)
	}
}

// rules are the lines of a policy that say something.
func rules(text string) (out []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

func TestPlanIsOfTheMountsThatAreNamed(t *testing.T) {
	for _, format := range []string{"hcl", "terraform"} {
		text, err := admin.Plan(format, "teams/batch", "machines")
		must(t, err)
		if !strings.Contains(text, "teams/batch") || !strings.Contains(text, `machines"`) || strings.ContainsAny(text, "@") || strings.Contains(text, "<mount>") || strings.Contains(text, "<auth>") {
			t.Errorf("%s:\n%s", format, text)
		}
	}
	for _, bad := range [][3]string{{"yaml", "", ""}, {"hcl", "a b", ""}, {"hcl", "sys", ""}, {"terraform", "", `x"`}, {"hcl", "../x", ""}} {
		_, err := admin.Plan(bad[0], bad[1], bad[2])
		want(t, err, admin.ErrInvalid)
	}
}

package admin

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// upgradeTime bounds the wait for a new KV mount, which first turns itself into version 2.
const upgradeTime = 30 * time.Second

// mountInfo is what Vault says of a mount or an auth method.
type mountInfo struct {
	Type     string            `json:"type"`
	Accessor string            `json:"accessor"`
	Options  map[string]string `json:"options"`
}

// Init makes what all machines share: the mount of the documents, AppRole, and
// the policy of every machine. What is there already stays; a mount of another
// kind in its place is ErrTaken.
func (a *Admin) Init(ctx context.Context) ([]Step, error) {
	w := a.begin()
	err := w.init(ctx)
	return w.steps, err
}

func (w *work) init(ctx context.Context) error {
	if err := w.initMount(ctx); err != nil {
		return err
	}
	if err := w.initAuth(ctx); err != nil {
		return err
	}
	return w.putPolicy(ctx, machinePolicy, machineRules)
}

func (w *work) initMount(ctx context.Context) error {
	m, err := w.mount(ctx, "sys/mounts", w.conf.Mount)
	switch {
	case err != nil:
		return err
	case m == nil:
		err := w.do(Create, "sys/mounts/"+w.conf.Mount, "key-value store, version 2", func() error {
			return w.write(ctx, "sys/mounts/"+w.conf.Mount, map[string]any{"type": "kv",
				"description": "batchwarden: batch users and policies", "options": map[string]string{"version": "2"}}, nil)
		})
		if err != nil || w.conf.DryRun {
			return err
		}
		return w.mountReady(ctx)
	case m.Type != "kv" || m.Options["version"] != "2":
		return fmt.Errorf("admin: %w: %q is a mount of type %q version %q, not kv version 2", ErrTaken, w.conf.Mount, m.Type, m.Options["version"])
	}
	return w.mountReady(ctx)
}

// mountReady waits until a mount that is new answers.
func (w *work) mountReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeTime)
	defer cancel()
	for {
		_, err := w.read(ctx, w.conf.Mount+"/config", nil)
		if err == nil || errors.Is(err, ErrForbidden) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("admin: the mount %q does not get ready: %w", w.conf.Mount, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (w *work) initAuth(ctx context.Context) error {
	m, err := w.mount(ctx, "sys/auth", w.conf.AuthMount)
	switch {
	case err != nil:
		return err
	case m == nil:
		return w.do(Create, "sys/auth/"+w.conf.AuthMount, "auth method approle", func() error {
			return w.write(ctx, "sys/auth/"+w.conf.AuthMount, map[string]any{"type": "approle",
				"description": "batchwarden: what machines log in with"}, nil)
		})
	case m.Type != "approle":
		return fmt.Errorf("admin: %w: %q is an auth method of type %q, not approle", ErrTaken, w.conf.AuthMount, m.Type)
	}
	return nil
}

// mount finds one mount in the list at path; nil when it is not there.
func (a *Admin) mount(ctx context.Context, path, name string) (*mountInfo, error) {
	var got struct {
		Data map[string]*mountInfo `json:"data"`
	}
	if _, err := a.read(ctx, path, &got); err != nil {
		return nil, err
	}
	return got.Data[name+"/"], nil
}

// authAccessor is what aliases name the AppRole mount by.
func (a *Admin) authAccessor(ctx context.Context) (string, error) {
	a.mu.Lock()
	known := a.accessor
	a.mu.Unlock()
	if known != "" {
		return known, nil
	}
	m, err := a.mount(ctx, "sys/auth", a.conf.AuthMount)
	if err != nil {
		return "", err
	}
	if m == nil || m.Type != "approle" {
		return "", fmt.Errorf("admin: no approle at %q: init comes first: %w", a.conf.AuthMount, ErrNotFound)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accessor = m.Accessor
	return m.Accessor, nil
}

// putPolicy makes the policy what text says. Once this Admin has done so, or seen
// that it is so, it is not looked at again.
func (w *work) putPolicy(ctx context.Context, name, text string) error {
	w.mu.Lock()
	known := w.policies[name]
	w.mu.Unlock()
	if known {
		return nil
	}
	text = rulesOf(text, w.conf.Mount, w.conf.AuthMount)
	now, err := w.policyText(ctx, name)
	if err != nil {
		return err
	}
	if other := mountOf(now); other != "" && other != w.conf.Mount {
		return fmt.Errorf("admin: %w: the policy %q is for the mount %q; a second installation in one Vault needs a namespace of its own", ErrTaken, name, other)
	}
	if now != text {
		verb := Update
		if now == "" {
			verb = Create
		}
		path := policyPath(name)
		if err := w.do(verb, path, "policy", func() error {
			return w.write(ctx, path, map[string]any{"policy": text}, nil)
		}); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.policies[name] = true
	return nil
}

// mountOf finds in a policy of ours the mount that it is for.
func mountOf(text string) string {
	head, _, found := strings.Cut(text, "/data/")
	_, mount, quoted := strings.Cut(head, `path "`)
	if !found || !quoted {
		return ""
	}
	return mount
}

func (a *Admin) policyText(ctx context.Context, name string) (string, error) {
	var got struct {
		Data struct {
			Policy string `json:"policy"`
		} `json:"data"`
	}
	found, err := a.read(ctx, policyPath(name), &got)
	if err != nil || !found {
		return "", err
	}
	return got.Data.Policy, nil
}

func policyPath(name string) string { return "sys/policies/acl/" + url.PathEscape(name) }

// Plan returns what Init writes, and the policies beside it, as text to read or
// to apply by other means: "hcl" is policies, "terraform" is the files of
// Terraform one after the other. Empty mounts are the usual ones.
func Plan(format, mount, authMount string) (string, error) {
	mount, authMount = strings.Trim(mount, "/"), strings.Trim(authMount, "/")
	if mount == "" {
		mount = DefaultMount
	}
	if authMount == "" {
		authMount = DefaultAuthMount
	}
	for _, m := range []string{mount, authMount} {
		if err := checkMount(m); err != nil {
			return "", fmt.Errorf("admin: %w", err)
		}
	}
	var b strings.Builder
	switch format {
	case "hcl":
		fmt.Fprintf(&b, planHead, mount, authMount)
		for _, p := range []struct{ name, about, text string }{
			{machinePolicy, "of every machine", machineRules},
			{groupPrefix + "GROUP", "one for each group: put its name for GROUP; the policy's name has it in small letters", scopeRules("groups/GROUP")},
			{platformPolicy("windows"), "for a machine that has this platform beside its first; likewise unix and zos", scopeRules("platforms/windows")},
			{operatorPolicy, "of whoever runs \"batchwarden admin\". Who may write policies and entities may do everything: give it to few", operatorRules},
		} {
			fmt.Fprintf(&b, "\n# ---- policy %s\n# %s\n%s", p.name, p.about, rulesOf(p.text, mount, authMount))
		}
	case "terraform":
		for i, f := range Terraform(mount, authMount) {
			if i > 0 {
				b.WriteString("\n")
			}
			fmt.Fprintf(&b, "# ---- file %s\n%s", f.Name, f.Text)
		}
	default:
		return "", fmt.Errorf("admin: %w: format %q: hcl or terraform", ErrInvalid, format)
	}
	return b.String(), nil
}

const planHead = `# What "batchwarden admin init" sets up:
#   a key-value store, version 2, at %q   vault secrets enable -path=… -version=2 kv
#   the auth method approle at %q         vault auth enable -path=… approle
#   the policies below                     vault policy write NAME FILE
# and what "batchwarden admin machine add" adds for each machine: a role of its
# own name without policies, the entity batchwarden-machine-NAME with the metadata
# machine and platform and with the policies, and an alias of the entity whose
# name is the role's role_id.
`

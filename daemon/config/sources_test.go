package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestSources(t *testing.T) {
	read := func(mount, prefix string) error {
		c, _, err := Check(host(t, fmt.Sprintf("vault: {address: https://v, mount: %q, auth: {role_id_file: /r, secret_id_file: /s}}\nsync: {sources: [%q]}\n", mount, prefix)))
		if err == nil && !slices.Equal(c.Sync.Sources, []string{prefix}) {
			t.Errorf("%q: got %q", prefix, c.Sync.Sources)
		}
		return err
	}
	for _, good := range []string{"ldap/static-cred", "ldap/static-cred/", "/os/hosts/", "kv", "batches", "batch-ldap/x", "system/x"} {
		if err := read("batch", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	if err := read("kv/batch", "kv"); err != nil {
		t.Errorf("a prefix above the mount: %v", err)
	}
	for _, c := range []struct{ mount, prefix, want string }{
		{"batch", "", "empty component"},
		{"batch", "/", "empty component"},
		{"batch", "ldap//x", "empty component"},
		{"batch", "ldap/../sys", "one of dots"},
		{"batch", "sys", "lies in one of"},
		{"batch", "/Sys/raw", "lies in one of"},
		{"batch", "auth/token", "lies in one of"},
		{"batch", "identity/", "lies in one of"},
		{"batch", "cubbyhole/x", "lies in one of"},
		{"batch", "batch/", "lies in vault.mount"},
		{"kv/batch", "kv/batch/data", "lies in vault.mount"},
		{"batch", "ldap/*", "without wildcards"},
		{"batch", "ldap/x?version=1", "without wildcards"},
		{"batch", strings.Repeat("x", 257), "longer than 256"},
	} {
		if err := read(c.mount, c.prefix); err == nil || !strings.Contains(err.Error(), "sync.sources[0]") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want a fault with %q", c.prefix, err, c.want)
		}
	}
}

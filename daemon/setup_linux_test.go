package daemon_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
)

// Starting again does not mend any of these, so the service manager must not
// try: exit 78, and every fault named.
func TestCannotStart(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	if err := b.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	start := func(config string) testbed.Result {
		return b.Command(b.Accounts.Daemon, "batchwardend", "--config", config)
	}
	key, vault := filepath.Join(b.State, "key"), filepath.Join(b.State, "vault")
	good, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(t *testing.T, r testbed.Result, says ...string) {
		t.Helper()
		if r.Code != 78 {
			t.Errorf("exit %d, want 78: %s", r.Code, r.Err)
		}
		for _, text := range says {
			if !strings.Contains(r.Err, text) {
				t.Errorf("it does not say %q: %s", text, r.Err)
			}
		}
	}
	t.Run("a faulty configuration, every fault with file, line and field", func(t *testing.T) {
		faulty := filepath.Join(b.Etc, "faulty.yaml")
		text := "version: 1\nmachine: \"a b\"\nsockets: /x\nvault: {address: 7}\n"
		if err := os.WriteFile(faulty, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		refused(t, start(faulty), "faulty.yaml:2", "machine", "faulty.yaml:3", "sockets", "faulty.yaml:4", "vault.address")
		check := b.CLI(b.Accounts.Stranger, "config", "check", faulty)
		refused(t, check, "faulty.yaml:2", "faulty.yaml:3", "faulty.yaml:4")
	})
	t.Run("no configuration", func(t *testing.T) {
		refused(t, start(filepath.Join(b.Etc, "none.yaml")), "none.yaml")
	})
	t.Run("a configuration that others can write", func(t *testing.T) {
		loose := filepath.Join(b.Etc, "loose.yaml")
		text, err := os.ReadFile(b.ConfigFile())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(loose, text, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(loose, 0o666); err != nil {
			t.Fatal(err)
		}
		refused(t, start(loose), "loose.yaml")
	})
	t.Run("the key has gone, the vault is there: no new key, no new vault", func(t *testing.T) {
		if err := os.Rename(key, key+".away"); err != nil {
			t.Fatal(err)
		}
		refused(t, start(b.ConfigFile()), "key")
		if _, err := os.Stat(key); err == nil {
			t.Error("a key was made beside the vault")
		}
		if err := os.Rename(key+".away", key); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("the key is another vault's", func(t *testing.T) {
		other := append([]byte{^good[0]}, good[1:]...)
		write := func(text []byte) {
			t.Helper()
			if err := os.Chmod(key, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(key, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(key, 0o400); err != nil {
				t.Fatal(err)
			}
		}
		write(other)
		refused(t, start(b.ConfigFile()), "key")
		write(good)
	})
	if entries, err := os.ReadDir(vault); err != nil || len(entries) == 0 {
		t.Fatalf("the vault: %v, %v", entries, err)
	}
	if err := b.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := b.WaitHealthy(); err != nil {
		t.Errorf("after all was mended: %v", err)
	}
}

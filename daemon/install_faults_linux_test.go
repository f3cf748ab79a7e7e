package daemon_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// TestInstallRefuses tries to install where something speaks against it: it is said, and nothing is changed.
func TestInstallRefuses(t *testing.T) {
	testbed.NeedMachine(t)
	b := testbed.New(t, testbed.Options{})
	self := b.Bin + "/batchwarden"
	t.Run("no systemd", func(t *testing.T) {
		r := b.CLI(testbed.Root, "setup", "install")
		if r.Code != 1 || !strings.Contains(r.Err, "nothing was changed") || !strings.Contains(r.Err, "no systemd") && !strings.Contains(r.Err, "no service manager") {
			t.Errorf("exit %d: %s", r.Code, r.Err)
		}
		if r := b.CLI(b.Accounts.Stranger, "setup", "install"); r.Code != 77 || !strings.Contains(r.Err, "only root") {
			t.Errorf("as a stranger: exit %d: %s", r.Code, r.Err)
		}
	})
	m := boot(t, b)
	before := m.sh(leftovers)
	install := func(more ...string) []string {
		return append([]string{self, "setup", "install", "--answers", m.answers(), "--no-start"}, more...)
	}
	// refused is a case: what speaks against it, what is said, and how it is mended.
	for _, c := range []struct {
		name, do, undo string
		code           int
		says           []string
	}{
		{"another unit of that name", "mkdir -p /etc/systemd/system; printf '[Service]\\nExecStart=/bin/true\\n' > /etc/systemd/system/batchwardend.service",
			"grep -q /bin/true /etc/systemd/system/batchwardend.service && rm /etc/systemd/system/batchwardend.service", 1,
			[]string{"/etc/systemd/system/batchwardend.service is there already", "--force"}},
		{"another program of that name", "printf '#!/bin/sh\\n' > /usr/bin/batchwarden", "test $(wc -c < /usr/bin/batchwarden) = 10 && rm /usr/bin/batchwarden", 1,
			[]string{"/usr/bin/batchwarden is there already", "--force"}},
		{"a group of that name with people in it", "groupadd -g 1500 batchwarden; usermod -aG batchwarden " + b.Accounts.Stranger.Name, "groupdel batchwarden", 1,
			[]string{"group batchwarden is there already", b.Accounts.Stranger.Name, "gid 1500"}},
		{"a person of that name", "useradd -M -s /bin/bash batchwarden-sync", "userdel batchwarden-sync", 1,
			[]string{"user batchwarden-sync is there already", "can log in"}},
		{"a directory that others can write", "mkdir -m 0777 /var/lib/batchwarden", "rmdir /var/lib/batchwarden", 1,
			[]string{"/var/lib/batchwarden", "can write it", "--force"}},
		{"read-only /etc", "mount --bind /etc /etc; mount -o remount,bind,ro /etc", "umount /etc", 1,
			[]string{"nothing can be written into /etc", "read-only file system"}},
		{"a broken configuration", "mkdir /etc/batchwarden; printf 'version: 1\\nsockets: x\\n' > /etc/batchwarden/batchwarden.yaml", "rm -r /etc/batchwarden", 78,
			[]string{"batchwarden.yaml:2", "sockets", "is not replaced"}},
		{"units of a package", "mkdir -p /usr/lib/systemd/system; touch /usr/lib/systemd/system/batchwardend.service", "rm /usr/lib/systemd/system/batchwardend.service", 1,
			[]string{"a package has installed batchwarden", "/usr/bin/batchwarden setup install"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &installed{m.Booted, t, b}
			m.sh(c.do)
			m.refuses(install(), c.code, append(c.says, "nothing was changed")...)
			m.sh(c.undo)
			if after := m.sh(leftovers); after != before {
				t.Errorf("it left:\n%s", after)
			}
		})
	}
	t.Run("answers that make no configuration", func(t *testing.T) {
		m := &installed{m.Booted, t, b}
		for text, says := range map[string]string{
			"version: 1\nvault: {}\n": "vault.address",
			"version: 1\nvalut: {}\n": "valut",
			"version: 2\n":            "version",
			"vault: {address: https://a, auth: {role_id_file: /none, secret_id_file: /none}}": "/none",
		} {
			path := b.Root + "/wrong.yaml"
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			r := m.Command(self, "setup", "install", "--answers", path)
			if r.Code == 0 || !strings.Contains(r.Err, says) {
				t.Errorf("%q: exit %d, want a refusal that names %s: %s", text, r.Code, says, r.Err)
			}
		}
		if after := m.sh(leftovers); after != before {
			t.Errorf("it left:\n%s", after)
		}
	})

	t.Run("a key of a TPM that is not there", func(t *testing.T) {
		m := &installed{m.Booted, t, b}
		m.refuses(install("--key", "tpm2"), 1, "no TPM", "/dev/tpmrm0", "nothing was changed")
		if after := m.sh(leftovers); after != before {
			t.Errorf("it left:\n%s", after)
		}
	})
	t.Run("AppArmor is said, and --force takes what is there", func(t *testing.T) {
		m := &installed{m.Booted, t, b}
		m.sh("mount -o remount,rw /sys && mkdir -p /sys/module/apparmor/parameters /etc/apparmor.d; echo Y > /sys/module/apparmor/parameters/enabled && echo /usr/lib/batchwarden/batchwardend > /etc/apparmor.d/local-profile")
		m.sh("mkdir -p /etc/systemd/system; echo other > /etc/systemd/system/batchwardend.service; groupadd -r batchwarden")
		out := m.ok(install("--force")...)
		for _, want := range []string{"AppArmor is active", "/etc/apparmor.d/local-profile", "batchwardend.service is there already", "--force goes on"} {
			if !strings.Contains(out, want) {
				t.Errorf("it does not say %q: %s", want, out)
			}
		}
		m.ok("grep", "-q", "memfd_secret", "/etc/systemd/system/batchwardend.service")
		m.sh("rm -r /sys/module /etc/apparmor.d")
	})
	t.Run("an upgrade that was interrupted", func(t *testing.T) {
		m := &installed{m.Booted, t, b}
		// Of an older version: its sum is in the list, beside that of the one that was to come.
		m.sh(`cd /usr/lib/batchwarden
echo older > batchwardend; sha256sum /usr/lib/batchwarden/batchwardend >> /etc/batchwarden/setup.sha256
rm batchwarden-sync; head -c 100 /etc/systemd/system/batchwarden-launcher.service > x; cat x > /etc/systemd/system/batchwarden-launcher.service; rm x
echo half > .batchwarden-nss.new-123`)
		out := m.ok(install()...)
		for _, want := range []string{"An earlier set-up did not come to its end", "done       /usr/lib/batchwarden/batchwardend (another one was there)",
			"done       /usr/lib/batchwarden/batchwarden-sync", "done       /etc/systemd/system/batchwarden-launcher.service"} {
			if !strings.Contains(out, want) {
				t.Errorf("it does not say %q: %s", want, out)
			}
		}
		m.sh("cd /usr/lib/batchwarden; test ! -e .batchwarden-nss.new-123; sha256sum -c --quiet /etc/batchwarden/setup.sha256")
		if out := m.ok(install()...); !strings.Contains(out, "Nothing had to be changed") {
			t.Errorf("a second run says: %s", out)
		}
	})
	t.Run("what somebody has changed stays", func(t *testing.T) {
		m := &installed{m.Booted, t, b}
		m.sh("echo '# mine' >> /etc/systemd/system/batchwarden.socket")
		m.refuses(install(), 1, "batchwarden.socket is there already", "nothing was changed")
		m.ok("grep", "-q", "# mine", "/etc/systemd/system/batchwarden.socket")
		m.ok(install("--force")...)
	})
	t.Run("a user and a program that are missing", func(t *testing.T) {
		m := &installed{m.Booted, t, b}
		m.sh("userdel batchwarden-sync; rm /usr/lib/batchwarden/batchwarden-become")
		m.refuses([]string{self, "setup", "start"}, 1, "batchwarden-sync", "does not exist", "batchwarden-become is missing", "setup install mends that")
		m.ok(install()...)
		m.ok("id", "batchwarden-sync")
	})
	t.Run("a service that does not start says why, in time", func(t *testing.T) {
		m := &installed{m.Booted, t, b}
		m.sh("chmod 600 /var/lib/batchwarden/key; echo short > /var/lib/batchwarden/key")
		m.refuses([]string{self, "setup", "start"}, 1, "start batchwardend", "failed", "journalctl -u batchwardend.service")
		m.refuses([]string{self, "setup", "status"}, 1)
	})
	t.Run("a credential as the key", func(t *testing.T) {
		m := &installed{m.Booted, t, b}
		m.ok(self, "setup", "uninstall", "--purge")
		args := slices.DeleteFunc(install("--key", "credential"), func(s string) bool { return s == "--no-start" })
		out := m.ok(args...)
		r := m.Command("/usr/bin/batchwarden", "status", "--json") // exit 1: there is no realm yet
		var s wire.Status
		if err := json.Unmarshal([]byte(r.Out), &s); err != nil || s.LocalVault.Key != "credential" {
			t.Errorf("the local vault opens with %q, %v\n%s", s.LocalVault.Key, err, out)
		}
		m.ok(self, "setup", "uninstall", "--purge")
		if after := m.sh(leftovers); after != before {
			t.Errorf("left:\n%s\nwant\n%s", after, before)
		}
	})
}

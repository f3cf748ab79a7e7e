package daemon_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/vault/vaulttest"
)

// must fails the test of now.
func (w *ward) must(errs ...error) {
	w.t.Helper()
	for _, err := range errs {
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *ward) read(file string) []byte {
	w.t.Helper()
	text, err := os.ReadFile(file)
	w.must(err)
	return text
}

// write puts text into a file, keeping owner and mode.
func (w *ward) write(file, text string) func() {
	was := w.read(file)
	w.must(os.WriteFile(file, []byte(text), 0))
	return func() { w.must(os.WriteFile(file, was, 0)) }
}

func (w *ward) chmod(file string, mode os.FileMode) func() {
	info, err := os.Stat(file)
	w.must(err, os.Chmod(file, mode))
	return func() { w.must(os.Chmod(file, info.Mode().Perm())) }
}

// chown gives a file of root's to somebody.
func (w *ward) chown(file string, to testbed.Account) func() {
	w.must(os.Chown(file, int(to.UID), -1))
	return func() { w.must(os.Chown(file, 0, -1)) }
}

func (w *ward) rename(file string) func() {
	w.must(os.Rename(file, file+".away"))
	return func() { w.must(os.Rename(file+".away", file)) }
}

// flip changes an octet at that part of a file, in place, as whoever has it open goes on.
func (w *ward) flip(file string, part int64) func() {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	w.must(err)
	defer f.Close()
	info, err := f.Stat()
	w.must(err)
	at, octet := info.Size()/part, make([]byte, 1)
	_, err = f.ReadAt(octet, at)
	w.must(err)
	put := func(b byte) {
		g, err := os.OpenFile(file, os.O_RDWR, 0)
		w.must(err)
		_, err = g.WriteAt([]byte{b}, at)
		w.must(err, g.Close())
	}
	put(octet[0] ^ 1)
	return func() { put(octet[0]) }
}

// open lets everybody write the configuration; the sync worker refuses it too.
func (w *ward) open() func() {
	back := w.chmod(w.ConfigFile(), 0o666)
	w.sync()
	return func() {
		back()
		w.sync()
	}
}

func (w *ward) run(argv ...string) {
	w.t.Helper()
	if r := w.Command(testbed.Root, argv...); r.Code != 0 {
		w.t.Fatalf("%q: %d %s%s", argv, r.Code, r.Out, r.Err)
	}
}

// usermod changes an account, and back.
func (w *ward) usermod(name string, change []string, back ...string) func() {
	w.run(append(append([]string{"usermod"}, change...), name)...)
	if change[0] == "--login" {
		name = change[1]
	}
	return func() { w.run(append(append([]string{"usermod"}, back...), name)...) }
}

func (w *ward) locked() func() {
	name := w.Accounts.Payroll.Name
	w.run("usermod", "--password", "$6$salt$hash", name)
	return w.usermod(name, []string{"--lock"}, "--password", "!")
}

func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 20*time.Second)
}

// asked does something with Vault.
func (w *ward) asked(do func(context.Context) error) {
	w.t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	w.must(do(ctx))
}

// sync makes the service notice, whatever comes of it.
func (w *ward) sync() {
	w.t.Helper()
	_, err := w.Sync()
	w.must(err)
}

func (w *ward) otherCA() func() {
	other := w.Root + "/other-ca.pem"
	_, _, err := vaulttest.NewCA(other)
	w.must(err)
	return w.write(w.Etc+"/vault-ca.pem", string(w.read(other)))
}

// expiredCertificate starts the server with a certificate of the last year.
func (w *ward) expiredCertificate() func() {
	ca, key, err := vaulttest.NewCA(w.Vault.CAFile)
	w.must(err)
	pair := certificate(w, ca, key, time.Now().Add(-24*time.Hour))
	for name, block := range map[string]*pem.Block{
		"server.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		"server.key": {Type: "PRIVATE KEY", Bytes: pkcs8(w, pair)},
	} {
		w.must(os.WriteFile(filepath.Join(w.Vault.Dir, name), pem.EncodeToMemory(block), 0o600))
	}
	adopt := w.write(w.Etc+"/vault-ca.pem", string(w.read(w.Vault.CAFile)))
	w.asked(w.Vault.Restart)
	return func() {
		adopt()
		w.asked(w.Vault.RotateCA)
		w.write(w.Etc+"/vault-ca.pem", string(w.read(w.Vault.CAFile)))
	}
}

// certificate makes one of the CA's for 127.0.0.1, good until a time.
func certificate(w *ward, ca *x509.Certificate, caKey *ecdsa.PrivateKey, until time.Time) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	t := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: until.Add(-365 * 24 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca, &key.PublicKey, caKey)
	w.must(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func pkcs8(w *ward, pair tls.Certificate) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	w.must(err)
	return der
}

func (w *ward) sealed() func() {
	w.asked(w.Vault.Seal)
	return func() { w.asked(w.Vault.Unseal) }
}

func (w *ward) vaultDown() func() {
	w.must(w.StopVault())
	return func() { w.must(w.ResumeVault()) }
}

// vaultHangs leaves the server's sockets open and nobody behind them.
func (w *ward) vaultHangs() func() {
	pid := w.VaultPID()
	w.must(syscall.Kill(pid, syscall.SIGSTOP))
	return func() { w.must(syscall.Kill(pid, syscall.SIGCONT)) }
}

// dayAhead is a stand-in: a proxy before the real server that says another date. It changes the address in the
// configuration.
func (w *ward) dayAhead() func() {
	ca, key, err := vaulttest.NewCA(w.Root + "/proxy-ca.pem")
	w.must(err)
	real, err := url.Parse(w.Vault.Address)
	w.must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.read(w.Vault.CAFile))
	proxy := httputil.NewSingleHostReverseProxy(real)
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	proxy.ModifyResponse = func(r *http.Response) error {
		date, err := http.ParseTime(r.Header.Get("Date"))
		r.Header.Set("Date", date.Add(24*time.Hour).Format(http.TimeFormat))
		return err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate(w, ca, key, time.Now().Add(300*24*time.Hour))}})
	w.must(err)
	server := &http.Server{Handler: proxy}
	go func() { _ = server.Serve(l) }() // ends with Close
	text := strings.NewReplacer(w.Vault.Address, "https://"+l.Addr().String(), w.Etc+"/vault-ca.pem", w.Root+"/proxy-ca.pem").Replace(string(w.read(w.ConfigFile())))
	back := w.write(w.ConfigFile(), text)
	return func() {
		back()
		w.must(server.Close())
	}
}

// secret writes another secret_id for the worker, makes the service use it, and returns how to take it back.
func (w *ward) secret(id string) func() {
	back := w.write(w.Etc+"/secret_id", id)
	w.sync()
	return func() {
		back()
		w.sync()
	}
}

// newSecret asks Vault for a secret_id with bounds.
func (w *ward) newSecret(bounds map[string]any) (id string) {
	w.asked(func(ctx context.Context) error {
		s, err := w.Vault.Root().Logical().WriteWithContext(ctx, "auth/approle/role/"+testbed.Machine+"/secret-id", bounds)
		if err == nil {
			id, _ = s.Data["secret_id"].(string)
		}
		return err
	})
	return id
}

func (w *ward) roleID() string { return string(w.read(w.Etc + "/role_id")) }

func (w *ward) usedSecret() func() {
	id := w.newSecret(map[string]any{"num_uses": 1})
	w.asked(func(ctx context.Context) error {
		_, err := w.Vault.Login(ctx, w.roleID(), id)
		return err
	})
	return w.secret(id)
}

// lastSecret is good for the login of now, and for no other.
func (w *ward) lastSecret() func() { return w.secret(w.newSecret(map[string]any{"num_uses": 1})) }

func (w *ward) expiredSecret() func() {
	id := w.newSecret(map[string]any{"ttl": "1s"})
	w.asked(func(ctx context.Context) error {
		for { // until the server has noticed, as this one does when it tidies up
			if _, err := w.Vault.Root().Logical().WriteWithContext(ctx, "auth/approle/tidy/secret-id", nil); err != nil {
				return err
			}
			if _, err := w.Vault.Login(ctx, w.roleID(), id); err != nil {
				return ctx.Err()
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	return w.secret(id)
}

func (w *ward) rules(rules ...vaulttest.Rule) {
	w.asked(func(ctx context.Context) error { return w.Vault.SetRules(ctx, testbed.Machine, rules...) })
	w.sync()
}

func (w *ward) lostPermission() func() {
	w.rules(vaulttest.Rule{Path: vaulttest.Mount + "/metadata/" + testbed.Scope + "/*", Capabilities: []string{"deny"}})
	return func() { w.rules() }
}

// noMount is a configuration that names a mount which is not there. The service is told by the worker, which reads it.
func (w *ward) noMount() func() {
	back := w.write(w.ConfigFile(), strings.Replace(string(w.read(w.ConfigFile())), "mount: batch\n", "mount: other\n", 1))
	w.sync()
	return func() {
		back()
		w.sync()
	}
}

func (w *ward) badDocument() func() {
	w.must(w.PutDocument("odd", map[string]any{"username": "x", "colour": "red"}))
	w.sync()
	return func() {
		w.must(w.DeleteBatchUser("odd"))
		w.sync()
	}
}

func (w *ward) machineRemoved() func() {
	w.asked(func(ctx context.Context) error {
		return w.Vault.PutIndex(ctx, testbed.Scope, map[string]any{"removed": true})
	})
	w.sync()
	return func() {
		w.asked(func(ctx context.Context) error {
			return w.Vault.Delete(ctx, vaulttest.Mount+"/metadata/"+testbed.Scope+"/index")
		})
		w.sync()
	}
}

// loginRemoved comes last: there is no way back.
func (w *ward) loginRemoved() func() {
	w.asked(func(ctx context.Context) error { return w.Vault.RemoveMachine(ctx, testbed.Machine) })
	w.sync()
	return nil
}

func (w *ward) limitsDirectory() func() {
	back := w.rename(w.LimitsFile())
	w.must(os.Mkdir(w.LimitsFile(), 0o700))
	return func() {
		w.must(os.Remove(w.LimitsFile()))
		back()
	}
}

// relaunch restarts the launcher and waits until the service has its word.
func (w *ward) relaunch() {
	w.t.Helper()
	w.must(w.RestartLauncher())
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s, err := w.Status()
		if err == nil && s.Launcher.Containment != "" {
			w.sync() // one that the restart cut off is not the last word
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("no word of the launcher's: %+v, %v", s.Launcher, err)
		}
	}
}

func (w *ward) relaunched(back func()) func() {
	w.relaunch()
	return func() {
		back()
		w.relaunch()
	}
}

func (w *ward) lostRequester() func() {
	return w.relaunched(w.write(w.LimitsFile(), fmt.Sprintf("version: 1\nrequesters: [%s, no-such-user]\n", w.Accounts.LSAM.Name)))
}

func (w *ward) noCgroup() func() {
	text := strings.Replace(string(w.read(w.ConfigFile())), "cgroup_root: auto", "cgroup_root: "+w.Root, 1)
	return w.relaunched(w.write(w.ConfigFile(), text))
}

func (w *ward) faultyConfiguration() func() {
	back := w.write(w.ConfigFile(), strings.Replace(string(w.read(w.ConfigFile())), "machine:", "machin:", 1))
	w.sync()
	return func() {
		back()
		w.sync()
	}
}

// otherLauncher is one of another version.
func (w *ward) otherLauncher() func() {
	top, err := testbed.Top()
	w.must(err)
	program := w.Bin + "/batchwarden-launcher"
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-X batchwarden/daemon/version.Number=v0.0.1-other", "-o", w.Root+"/other", "./daemon/cmd/batchwarden-launcher")
	build.Dir, build.Env = top, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		w.t.Fatalf("%v\n%s", err, out)
	}
	w.must(os.Rename(program, program+".own"), os.Rename(w.Root+"/other", program))
	return w.relaunched(func() { w.must(os.Rename(program+".own", program)) })
}

// replacedLauncher is what an upgrade without a restart leaves.
func (w *ward) replacedLauncher() func() {
	program := w.Bin + "/batchwarden-launcher"
	w.must(os.WriteFile(program+".new", w.read(program), 0o755), os.Rename(program+".new", program))
	return w.relaunch
}

func (w *ward) suspended() func() {
	w.run("batchwarden", "suspend")
	return func() { w.run("batchwarden", "resume") }
}

func (w *ward) launcherDown() func() {
	w.must(w.Launcher.Stop())
	return w.relaunch
}

func (w *ward) daemonDown() func() {
	w.must(w.Daemon.Stop())
	return func() { w.must(w.StartDaemon(), w.WaitOnline()) }
}

// quarantined is a vault that was changed while the service was down.
func (w *ward) quarantined() func() {
	w.must(w.Daemon.Stop())
	w.flip(w.State+"/vault/vault.log", 2)
	w.must(w.StartDaemon(), w.WaitOnline())
	return func() {
		aside, err := filepath.Glob(w.State + "/vault/quarantine-*")
		w.must(err)
		for _, name := range aside {
			w.must(os.Remove(name))
		}
		w.must(w.RestartDaemon(), w.WaitOnline())
	}
}

// noInodes leaves room, and no place for another file.
func (w *ward) noInodes() func() {
	w.run("mount", "-o", "remount,nr_inodes=40", w.State)
	dir := w.State + "/many"
	w.must(os.Mkdir(dir, 0o700))
	for i := 0; ; i++ {
		if err := os.WriteFile(fmt.Sprintf("%s/%d", dir, i), nil, 0o600); err != nil {
			break
		}
	}
	return func() {
		w.must(os.RemoveAll(dir))
		w.run("mount", "-o", "remount,nr_inodes=10000", w.State)
	}
}

// readOnly is what an error of the disk makes of a file system; the service that wrote to it has ended.
func (w *ward) readOnly() func() {
	w.must(w.Daemon.Stop())
	w.run("mount", "-o", "remount,ro", w.State)
	return func() {
		w.run("mount", "-o", "remount,rw", w.State)
		w.must(w.StartDaemon(), w.WaitOnline())
	}
}

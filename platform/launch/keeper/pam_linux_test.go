package keeper

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
	"batchwarden/platform/pam"
)

// TestPAM: a job that wants PAM has what the session's modules set, the session lasts as long as the job, and who may
// have none gets no job.
func TestPAM(t *testing.T) {
	needRoot(t)
	const dir, helper, witness = world + "/pam", world + "/bin/batchwarden-pam", world + "/pam/witness"
	if out, err := exec.Command("../../pam/helper/compile", helper).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	files := map[string]string{
		dir + "/tell": "#!/bin/sh\necho $PAM_TYPE $PAM_USER >>" + witness + "\n",
		dir + "/env":  "REGION DEFAULT=north\nLANG DEFAULT=C.UTF-8\n",
		dir + "/lim":  "* - nofile 321\n",
		dir + "/batch": "account required pam_permit.so\nsession required pam_env.so conffile=" + dir + "/env readenv=0\nsession required pam_umask.so umask=0037\n" +
			"session required pam_limits.so conf=" + dir + "/lim\nsession required pam_exec.so quiet " + dir + "/tell\n",
		dir + "/no": "account required pam_deny.so\n",
	}
	err := os.Mkdir(dir, 0o755)
	for path, text := range files {
		err = errors.Join(err, os.WriteFile(path, []byte(text), 0o755))
	}
	if err := errors.Join(err, unix.Mount(dir, "/etc/pam.d", "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/etc/pam.d", 0); err != nil {
			t.Error(err)
		}
	})
	c := configure(t)
	c.PAM = pam.Program(helper)
	b := start(t, c)
	told := func() string {
		text, err := os.ReadFile(witness)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	s := spec("pam", "/bin/sh", "-c", "echo $REGION $LANG $(umask) $(ulimit -n)")
	s.PAM, s.Env = "batch", map[string]string{"LANG": "de_CH.UTF-8"}
	b.succeeded(b.run(s))
	if got := b.output("pam", launch.Stdout); got != "north de_CH.UTF-8 0037 321\n" {
		t.Errorf("the job has %q", got)
	}
	for until := time.Now().Add(10 * time.Second); told() != "open_session payroll\nclose_session payroll\n"; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("told %q", told())
		}
	}
	for service, code := range map[string]string{"no": launch.CodeLogon, "ghost": launch.CodeFailed} {
		s := spec(service, "/bin/true")
		s.PAM = service
		if job := b.run(s); job.State != launch.StateFailed || job.Code != code || !strings.Contains(job.Reason, "pam: ") {
			t.Errorf("%s: got %+v", service, job)
		}
	}
}

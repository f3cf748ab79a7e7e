package admin_test

import (
	"os"
	"os/exec"
	"testing"
)

// TestTerraformParsesTheFiles lets Terraform itself read them, where it is
// installed. It formats only what it can parse; what the resources of a provider
// take, it does not look at without that provider.
func TestTerraformParsesTheFiles(t *testing.T) {
	program, err := exec.LookPath("terraform")
	if err != nil {
		t.Skip("needs terraform in the path")
	}
	cmd := exec.Command(program, "fmt", "-check", "-diff", "-recursive", installed)
	cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH"), "CHECKPOINT_DISABLE=1"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

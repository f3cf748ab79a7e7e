package vaulttest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// Mount is the KV v2 mount that Init makes.
const Mount = "batch"

const (
	machinePolicy = "batchwarden-machine"
	upgradeTime   = 10 * time.Second
)

// machineRules let a machine read its own scope, its platform's and its own
// identity; {{…}} is filled in by Vault for the token that asks.
const machineRules = `
path "batch/data/machines/{{identity.entity.metadata.machine}}/*"       { capabilities = ["read"] }
path "batch/metadata/machines/{{identity.entity.metadata.machine}}/*"   { capabilities = ["read", "list"] }
path "batch/data/platforms/{{identity.entity.metadata.platform}}/*"     { capabilities = ["read"] }
path "batch/metadata/platforms/{{identity.entity.metadata.platform}}/*" { capabilities = ["read", "list"] }
path "identity/entity/id/{{identity.entity.id}}"                        { capabilities = ["read"] }
`

func groupPolicy(group string) string { return "batchwarden-group-" + group }

func groupRules(group string) string {
	return fmt.Sprintf(`
path "batch/data/groups/%[1]s/*"     { capabilities = ["read"] }
path "batch/metadata/groups/%[1]s/*" { capabilities = ["read", "list"] }
`, group)
}

// Init makes what all machines share: mount, auth method, policy. It may be called again.
func (s *Server) Init(ctx context.Context) error {
	sys := s.root.Sys()
	mounts, err := sys.ListMountsWithContext(ctx)
	if err != nil {
		return err
	}
	if mounts[Mount+"/"] == nil {
		if err := sys.MountWithContext(ctx, Mount, &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}}); err != nil {
			return err
		}
	}
	auths, err := sys.ListAuthWithContext(ctx)
	if err != nil {
		return err
	}
	if auths["approle/"] == nil {
		if err := sys.EnableAuthWithOptionsWithContext(ctx, "approle", &api.EnableAuthOptions{Type: "approle"}); err != nil {
			return err
		}
	}
	if err := sys.PutPolicyWithContext(ctx, machinePolicy, machineRules); err != nil {
		return err
	}
	return s.mountReady(ctx)
}

// mountReady waits until a new KV v2 mount, which first turns itself into one, answers.
func (s *Server) mountReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeTime)
	defer cancel()
	for {
		_, err := s.root.Logical().ReadWithContext(ctx, Mount+"/config")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// MachineOptions are what AddMachine leaves at its defaults.
type MachineOptions struct {
	Groups   []string
	TokenTTL time.Duration // default one hour
	TokenMax time.Duration // default ten times that
	Metadata map[string]string
}

// AddMachine entitles the machine to its own scope, its platform's and those of
// groups, and returns what it logs in with. Called again it gives a new secret_id
// and sets the groups anew.
func (s *Server) AddMachine(ctx context.Context, name, platform string, groups ...string) (roleID, secretID string, err error) {
	return s.AddMachineWith(ctx, name, platform, MachineOptions{Groups: groups})
}

// AddMachineWith is AddMachine with options.
func (s *Server) AddMachineWith(ctx context.Context, name, platform string, o MachineOptions) (roleID, secretID string, err error) {
	ttl := o.TokenTTL
	if ttl == 0 {
		ttl = time.Hour
	}
	most := o.TokenMax
	if most == 0 {
		most = 10 * ttl
	}
	role := "auth/approle/role/" + name
	if _, err := s.write(ctx, role, map[string]any{"token_ttl": seconds(ttl), "token_max_ttl": seconds(most)}); err != nil {
		return "", "", err
	}
	policies := []string{machinePolicy, extraPolicy(name)}
	if err := s.SetRules(ctx, name); err != nil {
		return "", "", err
	}
	for _, g := range o.Groups {
		if err := s.root.Sys().PutPolicyWithContext(ctx, groupPolicy(g), groupRules(g)); err != nil {
			return "", "", err
		}
		policies = append(policies, groupPolicy(g))
	}
	metadata := map[string]string{"machine": name, "platform": platform}
	if o.Metadata != nil {
		metadata = o.Metadata
	}
	if roleID, err = s.readString(ctx, role+"/role-id", "role_id"); err != nil {
		return "", "", err
	}
	if err := s.entity(ctx, "machine-"+name, roleID, metadata, policies); err != nil {
		return "", "", err
	}
	secretID, err = s.NewSecretID(ctx, name)
	return roleID, secretID, err
}

// entity gives the role's identity its metadata and policies. Policies of an
// entity hold at once, also for tokens that exist.
func (s *Server) entity(ctx context.Context, name, roleID string, metadata map[string]string, policies []string) error {
	if _, err := s.write(ctx, "identity/entity/name/"+name, map[string]any{"metadata": metadata, "policies": policies}); err != nil {
		return err
	}
	id, err := s.readString(ctx, "identity/entity/name/"+name, "id")
	if err != nil {
		return err
	}
	auths, err := s.root.Sys().ListAuthWithContext(ctx)
	if err != nil {
		return err
	}
	approle := auths["approle/"]
	if approle == nil {
		return errors.New("vaulttest: no approle: Init comes first")
	}
	_, err = s.write(ctx, "identity/entity-alias", map[string]any{"name": roleID, "canonical_id": id, "mount_accessor": approle.Accessor})
	return err
}

// NewSecretID returns another secret_id of the machine.
func (s *Server) NewSecretID(ctx context.Context, machine string) (string, error) {
	res, err := s.write(ctx, "auth/approle/role/"+machine+"/secret-id", nil)
	if err != nil {
		return "", err
	}
	id, _ := res.Data["secret_id"].(string) // empty is found below
	if id == "" {
		return "", errors.New("vaulttest: no secret_id in the answer")
	}
	return id, nil
}

// RemoveMachine takes role and identity away. Its documents stay.
func (s *Server) RemoveMachine(ctx context.Context, name string) error {
	for _, p := range []string{"auth/approle/role/" + name, "identity/entity/name/machine-" + name} {
		if err := s.Delete(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// Rule is one path of a Vault policy.
type Rule struct {
	Path         string
	Capabilities []string // "deny" wins over every other rule
}

// SetRules sets the machine's own rules, beside those that every machine has.
// They hold at once; none takes them back.
func (s *Server) SetRules(ctx context.Context, machine string, rules ...Rule) error {
	var b strings.Builder
	b.WriteString("# of this machine alone\n")
	for _, r := range rules {
		fmt.Fprintf(&b, "path %q { capabilities = [", r.Path)
		for i, c := range r.Capabilities {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%q", c)
		}
		b.WriteString("] }\n")
	}
	return s.root.Sys().PutPolicyWithContext(ctx, extraPolicy(machine), b.String())
}

func extraPolicy(machine string) string { return "batchwarden-extra-" + machine }

// PutBatchUser writes a new version of scope/batch_users/name.
func (s *Server) PutBatchUser(ctx context.Context, scope, name string, doc map[string]any) error {
	return s.PutDocument(ctx, scope+"/batch_users/"+name, doc)
}

// DeleteBatchUser marks the current version as deleted.
func (s *Server) DeleteBatchUser(ctx context.Context, scope, name string) error {
	return s.DeleteDocument(ctx, scope+"/batch_users/"+name)
}

// DestroyBatchUser removes the document and all it ever was.
func (s *Server) DestroyBatchUser(ctx context.Context, scope, name string) error {
	return s.Delete(ctx, path.Join(Mount, "metadata", scope, "batch_users", name))
}

// PutPolicy writes a new version of scope/policies/realm.
func (s *Server) PutPolicy(ctx context.Context, scope, realm string, doc map[string]any) error {
	return s.PutDocument(ctx, scope+"/policies/"+realm, doc)
}

// PutIndex writes scope/index.
func (s *Server) PutIndex(ctx context.Context, scope string, doc map[string]any) error {
	return s.PutDocument(ctx, scope+"/index", doc)
}

// PutPolicyInParts writes doc as parts of at most size octets, then their head.
func (s *Server) PutPolicyInParts(ctx context.Context, scope, realm string, doc []byte, size int) error {
	var head struct {
		Model string `json:"model"`
	}
	if err := json.Unmarshal(doc, &head); err != nil {
		return err
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(doc); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	at := scope + "/policies/" + realm
	var parts []any
	for chunk := range slices.Chunk(zipped.Bytes(), size) {
		res, err := s.write(ctx, fmt.Sprintf("%s/data/%s.parts/%d", Mount, at, len(parts)+1),
			map[string]any{"data": map[string]any{"data": base64.StdEncoding.EncodeToString(chunk)}})
		if err != nil {
			return err
		}
		sum := sha256.Sum256(chunk)
		parts = append(parts, map[string]any{"version": res.Data["version"], "sha256": hex.EncodeToString(sum[:])})
	}
	return s.PutDocument(ctx, at, map[string]any{"format": 1, "model": head.Model, "encoding": "gzip+base64", "parts": parts})
}

// PutDocument writes a new version of any document below the mount.
func (s *Server) PutDocument(ctx context.Context, at string, doc map[string]any) error {
	_, err := s.write(ctx, path.Join(Mount, "data", at), map[string]any{"data": doc})
	return err
}

// DeleteDocument marks the current version of any document as deleted.
func (s *Server) DeleteDocument(ctx context.Context, at string) error {
	return s.Delete(ctx, path.Join(Mount, "data", at))
}

// Delete is DELETE on any path of the server.
func (s *Server) Delete(ctx context.Context, at string) error {
	_, err := s.root.Logical().DeleteWithContext(ctx, at)
	return err
}

// Unmount removes the mount and everything in it.
func (s *Server) Unmount(ctx context.Context) error {
	return s.root.Sys().UnmountWithContext(ctx, Mount)
}

// Login returns a token as a machine gets it.
func (s *Server) Login(ctx context.Context, roleID, secretID string) (string, error) {
	c, err := s.Client("")
	if err != nil {
		return "", err
	}
	res, err := c.Logical().WriteWithContext(ctx, "auth/approle/login", map[string]any{"role_id": roleID, "secret_id": secretID})
	if err != nil {
		return "", err
	}
	return res.Auth.ClientToken, nil
}

// As sends one request with the token and returns the status and the body.
func (s *Server) As(ctx context.Context, token, method, at string) (int, []byte, error) {
	c, err := s.Client(token)
	if err != nil {
		return 0, nil, err
	}
	web := c.CloneConfig().HttpClient
	defer web.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, s.Address+"/v1/"+at, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-Vault-Request", "true")
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	res, err := web.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	return res.StatusCode, body, err
}

// ReadAs reads a document below the mount with the token and returns the status.
func (s *Server) ReadAs(ctx context.Context, token, at string) (int, error) {
	status, _, err := s.As(ctx, token, http.MethodGet, path.Join(Mount, "data", at))
	return status, err
}

func (s *Server) write(ctx context.Context, at string, data map[string]any) (*api.Secret, error) {
	return s.root.Logical().WriteWithContext(ctx, at, data)
}

func (s *Server) readString(ctx context.Context, at, member string) (string, error) {
	res, err := s.root.Logical().ReadWithContext(ctx, at)
	if err != nil {
		return "", err
	}
	if res == nil {
		return "", fmt.Errorf("vaulttest: nothing at %s", at)
	}
	v, ok := res.Data[member].(string)
	if !ok {
		return "", fmt.Errorf("vaulttest: no %s at %s", member, at)
	}
	return v, nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%ds", int(d.Seconds())) }

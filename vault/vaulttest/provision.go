package vaulttest

import (
	"bytes"
	"cmp"
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

	"batchwarden/vault/admin"

	"github.com/hashicorp/vault/api"
)

// Mount is the KV v2 mount that Init makes.
const Mount = "batch"

// entityName is what vault/admin calls a machine's identity.
func entityName(machine string) string { return "batchwarden-machine-" + machine }

// Admin returns what "batchwarden admin" has behind it, with the root token. It
// is for one use: the server may be another the next time.
func (s *Server) Admin() (*admin.Admin, error) {
	return admin.New(admin.Config{Address: s.Address, Token: s.RootToken, CAFile: s.CAFile, Namespace: s.namespace, Mount: Mount})
}

// Init makes what all machines share: mount, auth method, policy. It may be called again.
func (s *Server) Init(ctx context.Context) error {
	a, err := s.Admin()
	if err != nil {
		return err
	}
	defer a.Close()
	_, err = a.Init(ctx)
	return err
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
	if roleID, _, err = s.entitle(ctx, name, platform, o); err != nil {
		return "", "", err
	}
	secretID, err = s.NewSecretID(ctx, name)
	return roleID, secretID, err
}

// entitle adds the machine as an operator does and gives its identity what only
// tests want: rules of its own and other metadata. It returns the role_id and
// the identity.
func (s *Server) entitle(ctx context.Context, name, platform string, o MachineOptions) (roleID, entity string, err error) {
	a, err := s.Admin()
	if err != nil {
		return "", "", err
	}
	defer a.Close()
	ttl, most := o.times()
	c, _, err := a.AddMachine(ctx, admin.Machine{Name: name, Platforms: []string{platform}, Groups: o.Groups,
		TokenTTL: ttl, TokenMax: most, NoSecretID: true})
	if err != nil {
		return "", "", err
	}
	if err := s.SetRules(ctx, name); err != nil {
		return "", "", err
	}
	at := "identity/entity/name/" + entityName(name)
	e, err := s.root.Logical().ReadWithContext(ctx, at)
	if err != nil {
		return "", "", err
	}
	policies, _ := e.Data["policies"].([]any) // at least every machine's
	set := map[string]any{"policies": append(policies, extraPolicy(name))}
	if o.Metadata != nil {
		set["metadata"] = o.Metadata
	}
	if _, err := s.write(ctx, at, set); err != nil {
		return "", "", err
	}
	entity, err = s.readString(ctx, at, "id")
	return c.RoleID, entity, err
}

// times are how long o lets tokens live, renewed and not.
func (o MachineOptions) times() (ttl, most time.Duration) {
	ttl = cmp.Or(o.TokenTTL, time.Hour)
	return ttl, cmp.Or(o.TokenMax, 10*ttl)
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
	for _, p := range []string{"auth/approle/role/" + name, "identity/entity/name/" + entityName(name)} {
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

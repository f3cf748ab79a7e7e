package vaulttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// authority issues what machines prove themselves with, beside Vault.
type authority struct {
	once sync.Once
	err  error
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey // of ca and of JWTs
}

// issuer is the authority, made when it is first asked for.
func (s *Server) issuer() (*authority, error) {
	a := s.issuers
	a.once.Do(func() { a.ca, a.key, a.err = NewCA(filepath.Join(s.Dir, "machines-ca.pem")) })
	return a, a.err
}

// audience is whom the machines' JWTs are for.
const audience = "batchwarden"

// AddMachineCert entitles the machine to its own scope, its platform's and those
// of o's groups by the cert method, in a role of its own name, and returns a
// certificate with its key, both PEM.
func (s *Server) AddMachineCert(ctx context.Context, name, platform string, o MachineOptions) (cert, key []byte, err error) {
	a, err := s.issuer()
	if err != nil {
		return nil, nil, err
	}
	role := o.role()
	role["certificate"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.ca.Raw}))
	role["allowed_common_names"] = name
	if err := s.addMachineBy(ctx, "cert", "certs", role, name, platform, o); err != nil {
		return nil, nil, err
	}
	return s.NewMachineCert(name, lifetime)
}

// NewMachineCert returns another certificate in the machine's name, good for
// life from now; less than zero has expired.
func (s *Server) NewMachineCert(name string, life time.Duration) (cert, key []byte, err error) {
	a, err := s.issuer()
	if err != nil {
		return nil, nil, err
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t, err := template(name)
	if err != nil {
		return nil, nil, err
	}
	t.NotBefore, t.NotAfter = time.Now().Add(min(0, life)-time.Hour), time.Now().Add(life)
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, t, a.ca, &own.PublicKey, a.key)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), nil
}

// AddMachineJWT entitles the machine as AddMachineCert does, by the jwt method,
// and returns a JWT that is good for an hour.
func (s *Server) AddMachineJWT(ctx context.Context, name, platform string, o MachineOptions) (string, error) {
	role := o.role()
	role["role_type"], role["user_claim"] = "jwt", "sub"
	role["bound_subject"], role["bound_audiences"] = name, []string{audience}
	if err := s.addMachineBy(ctx, "jwt", "role", role, name, platform, o); err != nil {
		return "", err
	}
	return s.NewMachineJWT(name, time.Hour)
}

// NewMachineJWT returns another JWT in the machine's name, good for life from
// now; less than zero has expired.
func (s *Server) NewMachineJWT(name string, life time.Duration) (string, error) {
	a, err := s.issuer()
	if err != nil {
		return "", err
	}
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": audience + "-test", "sub": name, "aud": audience, "jti": rand.Text(),
		"iat": now.Add(min(0, life) - time.Hour).Unix(), "exp": now.Add(life).Unix(),
	})
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	r, v, err := ecdsa.Sign(rand.Reader, a.key, sum[:])
	if err != nil {
		return "", err
	}
	var both [64]byte
	r.FillBytes(both[:32])
	v.FillBytes(both[32:])
	return text + "." + encode(both[:]), nil
}

// role is what o says of tokens.
func (o MachineOptions) role() map[string]any {
	ttl, most := o.times()
	return map[string]any{"token_ttl": seconds(ttl), "token_max_ttl": seconds(most)}
}

// addMachineBy makes a role of the machine's name below the method and gives
// the identity that logs in by it what a machine has.
func (s *Server) addMachineBy(ctx context.Context, method, roles string, role map[string]any, name, platform string, o MachineOptions) error {
	accessor, err := s.method(ctx, method)
	if err != nil {
		return err
	}
	if method == "jwt" {
		if err := s.trustJWTs(ctx); err != nil {
			return err
		}
	}
	if _, err := s.write(ctx, "auth/"+method+"/"+roles+"/"+name, role); err != nil {
		return err
	}
	_, id, err := s.entitle(ctx, name, platform, o)
	if err != nil {
		return err
	}
	_, err = s.write(ctx, "identity/entity-alias", map[string]any{"name": name, "canonical_id": id, "mount_accessor": accessor})
	return err
}

// method enables an auth method that is not, and returns its accessor.
func (s *Server) method(ctx context.Context, name string) (accessor string, err error) {
	for range 2 {
		auths, err := s.root.Sys().ListAuthWithContext(ctx)
		if err != nil {
			return "", err
		}
		if m := auths[name+"/"]; m != nil {
			return m.Accessor, nil
		}
		if err := s.root.Sys().EnableAuthWithOptionsWithContext(ctx, name, &api.EnableAuthOptions{Type: name}); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("vaulttest: the auth method %s is enabled and not there", name)
}

func (s *Server) trustJWTs(ctx context.Context) error {
	a, err := s.issuer()
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(&a.key.PublicKey)
	if err != nil {
		return err
	}
	_, err = s.write(ctx, "auth/jwt/config", map[string]any{
		"jwt_validation_pubkeys": []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))},
	})
	return err
}

// NewWrappedSecretID returns a wrapping token, good for life, that holds
// another secret_id of the machine.
func (s *Server) NewWrappedSecretID(ctx context.Context, machine string, life time.Duration) (string, error) {
	return s.Wrap(ctx, "auth/approle/role/"+machine+"/secret-id", nil, life)
}

// Wrap writes data to a path and returns a wrapping token, good for life, that
// holds the answer.
func (s *Server) Wrap(ctx context.Context, at string, data map[string]any, life time.Duration) (string, error) {
	c, err := s.Client(s.RootToken)
	if err != nil {
		return "", err
	}
	c.SetWrappingLookupFunc(func(string, string) string { return seconds(life) })
	res, err := c.Logical().WriteWithContext(ctx, at, data)
	if err != nil {
		return "", err
	}
	if res == nil || res.WrapInfo == nil {
		return "", errors.New("vaulttest: an answer that is not wrapped")
	}
	return res.WrapInfo.Token, nil
}

// Unwrap uses a wrapping token up, as anybody who has it can.
func (s *Server) Unwrap(ctx context.Context, token string) (map[string]any, error) {
	c, err := s.Client(token)
	if err != nil {
		return nil, err
	}
	res, err := c.Logical().UnwrapWithContext(ctx, "")
	if err != nil {
		return nil, err
	}
	return res.Data, nil
}

// Namespace makes a namespace and returns the server as it looks from inside.
// It is stopped and closed by the server itself, not by what Namespace returns.
func (s *Server) Namespace(ctx context.Context, name string) (*Server, error) {
	if _, err := s.write(ctx, "sys/namespaces/"+name, nil); err != nil {
		return nil, err
	}
	in := &Server{Address: s.Address, CAFile: s.CAFile, RootToken: s.RootToken, Dir: s.Dir,
		namespace: name, issuers: s.issuers}
	var err error
	in.root, err = in.Client(in.RootToken)
	return in, err
}

// RotateCA stops the server and starts it with a certificate of a new CA, which
// takes the old one's place in CAFile.
func (s *Server) RotateCA(ctx context.Context) error {
	if err := s.Stop(); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(s.Dir, certFile)); err != nil {
		return err
	}
	if err := makeCertificates(s.Dir); err != nil {
		return err
	}
	if err := s.Restart(ctx); err != nil {
		return err
	}
	var err error
	s.root, err = s.Client(s.RootToken)
	return err
}

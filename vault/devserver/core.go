package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/openbao/openbao/builtin/credential/approle"
	"github.com/openbao/openbao/builtin/credential/cert"
	jwtauth "github.com/openbao/openbao/builtin/credential/jwt"
	"github.com/openbao/openbao/builtin/credential/userpass"
	"github.com/openbao/openbao/builtin/logical/kv"
	"github.com/openbao/openbao/command/server"
	"github.com/openbao/openbao/helper/namespace"
	"github.com/openbao/openbao/internalshared/configutil"
	"github.com/openbao/openbao/sdk/v2/helper/consts"
	"github.com/openbao/openbao/sdk/v2/logical"
	"github.com/openbao/openbao/sdk/v2/physical"
	"github.com/openbao/openbao/vault"
)

func secretEngines() map[string]logical.Factory {
	return map[string]logical.Factory{"kv": kv.Factory}
}

func authMethods() map[string]logical.Factory {
	return map[string]logical.Factory{"approle": approle.Factory, "cert": cert.Factory, "jwt": jwtauth.Factory, "userpass": userpass.Factory}
}

// builtins answers the core's question which engines exist. None is a plugin:
// the factories given to the core make them.
type builtins struct{}

func (builtins) Contains(name string, _ consts.PluginType) bool {
	return secretEngines()[name] != nil || authMethods()[name] != nil
}
func (builtins) Get(string, consts.PluginType) (func() (any, error), bool) { return nil, false }
func (builtins) Keys(consts.PluginType) []string                           { return nil }
func (builtins) DeprecationStatus(string, consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, true
}

func newCore(store physical.Backend, log hclog.Logger, level string) (*vault.Core, error) {
	return vault.NewCore(&vault.CoreConfig{
		RawConfig:          &server.Config{SharedConfig: &configutil.SharedConfig{}},
		Physical:           store,
		StorageType:        "inmem",
		Logger:             log,
		LogLevel:           level,
		BuiltinRegistry:    builtins{},
		LogicalBackends:    secretEngines(),
		CredentialBackends: authMethods(),
		DisableSSCTokens:   true, // so that a chosen token is the token
	})
}

// keys is the content of the keys file.
type keys struct {
	UnsealKey string `json:"unseal_key"` // hex
	RootToken string `json:"root_token"`
}

// open initialises a new store, or takes the keys of one that was initialised
// here before, and unseals it. When it returns nil the core serves, unless
// sealed asked for the opposite.
func open(core *vault.Core, file, rootToken string, sealed bool) error {
	ctx := namespace.ContextWithNamespace(context.Background(), namespace.RootNamespace)
	initialised, err := core.Initialized(ctx)
	if err != nil {
		return err
	}
	if !initialised {
		k, err := initialise(ctx, core, file, rootToken)
		if err != nil {
			return fmt.Errorf("initialise: %w", err)
		}
		if sealed {
			return core.Seal(k.RootToken)
		}
		return nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the store exists, its keys do not: %w", err)
	}
	var k keys
	if err := json.Unmarshal(b, &k); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if rootToken != "" && rootToken != k.RootToken {
		return fmt.Errorf("%s was set up with another root token", file)
	}
	if sealed {
		return nil
	}
	key, err := hex.DecodeString(k.UnsealKey)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return unseal(core, key)
}

func unseal(core *vault.Core, key []byte) error {
	if ok, err := core.Unseal(key); err != nil || !ok {
		return errors.Join(errors.New("did not unseal"), err)
	}
	return nil
}

// initialise leaves the core unsealed with exactly one root token, rootToken
// or the server's own when that is empty, and the keys in file if one is named.
func initialise(ctx context.Context, core *vault.Core, file, rootToken string) (keys, error) {
	res, err := core.Initialize(ctx, &vault.InitParams{
		BarrierConfig: &vault.SealConfig{SecretShares: 1, SecretThreshold: 1, StoredShares: 1},
	})
	if err != nil {
		return keys{}, err
	}
	k := keys{UnsealKey: hex.EncodeToString(res.SecretShares[0]), RootToken: res.RootToken}
	if err := unseal(core, res.SecretShares[0]); err != nil {
		return keys{}, err
	}
	if rootToken != "" {
		if err := replaceRoot(ctx, core, res.RootToken, rootToken); err != nil {
			return keys{}, err
		}
		k.RootToken = rootToken
	}
	if file == "" {
		return k, nil
	}
	b, err := json.Marshal(k)
	if err != nil {
		return keys{}, err
	}
	return k, os.WriteFile(file, append(b, '\n'), 0o600)
}

func replaceRoot(ctx context.Context, core *vault.Core, old, token string) error {
	if err := request(ctx, core, old, "auth/token/create", map[string]any{
		"id": token, "policies": []string{"root"}, "no_parent": true, "no_default_policy": true,
	}); err != nil {
		return err
	}
	return request(ctx, core, old, "auth/token/revoke-self", nil)
}

func request(ctx context.Context, core *vault.Core, token, path string, data map[string]any) error {
	resp, err := core.HandleRequest(ctx, &logical.Request{
		ID: path, Operation: logical.UpdateOperation, ClientToken: token, Path: path, Data: data,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if resp != nil && resp.IsError() {
		return fmt.Errorf("%s: %w", path, resp.Error())
	}
	return nil
}

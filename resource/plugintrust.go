package resource

import (
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"

	"github.com/weirmesh/weir/internal/signature"
)

// TheTrust is the name of a tenant's one PluginTrust.
const TheTrust = "default"

// maxSignatures of one module, and keys of one PluginTrust.
const (
	maxSignatures = 16
	maxKeys       = 64
)

// TrustRef is the PluginTrust that is asked about the plugins of a tenant.
func TrustRef(tenant string) Ref { return Ref{Kind: KindPluginTrust, Tenant: tenant, Name: TheTrust} }

func (c *check) pluginTrust(t *weirv1.PluginTrust) {
	if name := t.GetMetadata().GetName(); name != "" && name != TheTrust {
		c.add("metadata.name", "must be %q: a tenant has one PluginTrust", TheTrust)
	}
	const at = Path("spec.keys")
	keys := t.GetSpec().GetKeys()
	c.count(at, len(keys), 0, maxKeys, "key")
	names, ids := map[string]bool{}, map[string]bool{}
	for i, k := range keys {
		at := at.Index(i)
		c.syntax(at.Field("name"), checkLabel(k.GetName()))
		c.unique(names, at.Field("name"), k.GetName(), "the name")
		public, err := signature.ParsePublic([]byte(k.GetPublicKey()))
		if err != nil {
			c.add(at.Field("publicKey"), "must be the public key of weir plugin keygen, in PEM: %s", err)
			continue
		}
		c.unique(ids, at.Field("publicKey"), signature.KeyID(public), "the key")
		if k.GetNotAfter() != nil && k.GetNotAfter().CheckValid() != nil {
			c.add(at.Field("notAfter"), `is not a time such as "2027-01-31T00:00:00Z"`)
		}
	}
}

func (c *check) signatures(at Path, list []*weirv1.PluginSignature) {
	c.count(at, len(list), 0, maxSignatures, "signature")
	seen := map[string]bool{}
	for i, s := range list {
		c.syntax(at.Index(i), signature.Signature{Key: s.GetKey(), Bytes: s.GetSignature()}.Wrong())
		c.unique(seen, at.Index(i).Field("key"), s.GetKey(), "a signature by")
	}
}

// Trust is what a PluginTrust says; nil says nothing. A key that cannot be read is
// none.
func Trust(t *weirv1.PluginTrust) signature.Trust {
	trust := signature.Trust{Require: t.GetSpec().GetRequireSignatures()}
	for _, k := range t.GetSpec().GetKeys() {
		public, err := signature.ParsePublic([]byte(k.GetPublicKey()))
		if err != nil {
			continue
		}
		key := signature.Key{Name: k.GetName(), Public: public}
		if k.GetNotAfter() != nil {
			key.NotAfter = k.GetNotAfter().AsTime()
		}
		trust.Keys = append(trust.Keys, key)
	}
	return trust
}

// Signatures are those of a module.
func Signatures(list []*weirv1.PluginSignature) []signature.Signature {
	out := make([]signature.Signature, len(list))
	for i, s := range list {
		out[i] = signature.Signature{Key: s.GetKey(), Bytes: s.GetSignature()}
	}
	return out
}

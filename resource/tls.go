package resource

import (
	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func (c *check) listenerTLS(at Path, l *weirv1.Listener) {
	tls := l.GetTls()
	switch {
	case l.GetProtocol() != weirv1.Listener_HTTPS && l.GetProtocol() != weirv1.Listener_TLS:
		if tls != nil {
			c.add(at, "is for protocol HTTPS and TLS, not for %s", l.GetProtocol())
		}
		return
	case tls == nil:
		c.add(at, "is required for %s: {certificateRefs: [{name: …}]}", l.GetProtocol())
		return
	case tls.GetMode() == weirv1.ListenerTLS_PASSTHROUGH:
		c.passthrough(at, l.GetProtocol(), tls)
		return
	}
	c.certificateRefs(at.Field("certificateRefs"), tls.GetCertificateRefs())
	if tls.GetProfile() == weirv1.ListenerTLS_MODERN && tls.GetMinVersion() == weirv1.ListenerTLS_TLS_1_2 {
		c.add(at.Field("minVersion"), "must not be TLS_1_2 with the profile MODERN, which is TLS 1.3 alone")
	}
	if v := tls.GetClientValidation(); v != nil {
		if _, err := ParseAuthorities(v.GetCaCertificates()); err != nil {
			c.add(at.Field("clientValidation").Field("caCertificates"), "%s", err)
		}
	}
}

// passthrough: TLS does not end here, so there is nothing to say of how.
func (c *check) passthrough(at Path, protocol weirv1.Listener_Protocol, tls *weirv1.ListenerTLS) {
	if protocol != weirv1.Listener_TLS {
		c.add(at.Field("mode"), "Passthrough is for protocol TLS, not for %s, which has to be read", protocol)
		return
	}
	if !proto.Equal(tls, &weirv1.ListenerTLS{Mode: weirv1.ListenerTLS_PASSTHROUGH}) {
		c.add(at, "has nothing but its mode where that is Passthrough: TLS ends at the service, which has the certificate")
	}
}

func (c *check) certificateRefs(at Path, refs []*weirv1.CertificateRef) {
	c.count(at, len(refs), 1, maxEntries, "Certificate")
	seen := map[string]bool{}
	for i, ref := range refs {
		at := at.Index(i)
		if k := ref.GetKind(); k != "" && k != KindCertificate {
			c.add(at.Field("kind"), "must be Certificate, not %q", k)
		}
		c.syntax(at.Field("name"), checkLabel(ref.GetName()))
		c.unique(seen, at.Field("name"), ref.GetName(), "the certificate")
	}
}

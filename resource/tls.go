package resource

import (
	"fmt"
	"net/url"
	"strings"

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
	c.certificateRefs(at.Field("certificateRefs"), tls.GetCertificateRefs(), 1)
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

// upstreamTLS is how connections to a service are secured.
func (c *check) upstreamTLS(at Path, tls *weirv1.UpstreamTLS) {
	if h := tls.GetHostname(); h != "" {
		c.syntax(at.Field("hostname"), checkHostname(h, false))
	}
	if pem := tls.GetCaCertificates(); pem != "" {
		if _, err := ParseAuthorities(pem); err != nil {
			c.add(at.Field("caCertificates"), "%s", err)
		}
	}
	c.certificateRefs(at.Field("caCertificateRefs"), tls.GetCaCertificateRefs(), 0)
	names := map[string]bool{}
	c.count(at.Field("subjectAltNames"), len(tls.GetSubjectAltNames()), 0, maxEntries, "name")
	for i, name := range tls.GetSubjectAltNames() {
		at := at.Field("subjectAltNames").Index(i)
		c.syntax(at, checkAltName(name))
		c.unique(names, at, name, "the name")
	}
	if ref := tls.GetClientCertificateRef(); ref != nil {
		at := at.Field("clientCertificateRef")
		if k := ref.GetKind(); k != "" && k != KindCertificate {
			c.add(at.Field("kind"), "must be Certificate, not %q", k)
		}
		c.syntax(at.Field("name"), checkLabel(ref.GetName()))
	}
	if tls.GetInsecureSkipVerify() {
		for _, beside := range []struct {
			name string
			set  bool
		}{
			{"caCertificates", tls.GetCaCertificates() != ""},
			{"caCertificateRefs", len(tls.GetCaCertificateRefs()) > 0},
			{"subjectAltNames", len(tls.GetSubjectAltNames()) > 0},
		} {
			if beside.set {
				c.add(at.Field("insecureSkipVerify"), "stands beside %s, which it would make void", beside.name)
			}
		}
	}
}

// checkAltName: a DNS name, or a URI.
func checkAltName(name string) string {
	if !strings.Contains(name, "://") {
		return checkHostname(name, false)
	}
	if u, err := url.Parse(name); err != nil || u.Host == "" || strings.ContainsAny(name, " \t\r\n") {
		return fmt.Sprintf("%q is neither a DNS name nor a URI", name)
	}
	return ""
}

func (c *check) certificateRefs(at Path, refs []*weirv1.CertificateRef, least int) {
	c.count(at, len(refs), least, maxEntries, "Certificate")
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

package stanza

// childFlag says what a child of that name means.
func childFlag(s space, local []byte) Flags {
	switch s {
	case acceptSpace, clientSpace, serverSpace:
		return flagIf(HasSubject, local, "subject") | flagIf(HasError, local, "error")
	case delaySpace:
		return flagIf(HasDelay, local, "delay")
	case forwardSpace:
		return flagIf(HasForwarded, local, "forwarded")
	case carbonsSpace:
		return flagIf(HasCarbon, local, "sent", "received")
	case mamSpace:
		return flagIf(HasMAMResult, local, "result")
	case pubsubEventSpace:
		return flagIf(HasPubsub, local, "event")
	case mucSpace:
		return flagIf(HasMUC, local, "x")
	case mucUserSpace:
		return flagIf(HasMUCUser, local, "x")
	case statesSpace:
		return flagIf(HasState, local, "active", "composing", "paused", "inactive", "gone")
	case receiptsSpace:
		return flagIf(HasReceipt, local, "received")
	case markersSpace:
		return flagIf(HasMarker, local, "received", "displayed", "acknowledged")
	case callSpace:
		return HasCall
	case hintsSpace:
		return flagIf(HasNoStore, local, "no-store") | flagIf(HasStore, local, "store")
	case emeSpace:
		return flagIf(HasEncrypted, local, "encryption")
	case omemoLegacySpace, omemoSpace:
		return flagIf(HasEncrypted, local, "encrypted")
	case openpgpSpace:
		return flagIf(HasEncrypted, local, "openpgp")
	case legacyPGPSpace:
		return flagIf(HasEncrypted, local, "x")
	case reactionsSpace:
		return flagIf(HasReaction, local, "reactions")
	case retractionSpace:
		return flagIf(HasRetraction, local, "retract")
	}
	return 0
}

// flagIf returns f if local is one of names.
func flagIf(f Flags, local []byte, names ...string) Flags {
	for _, name := range names {
		if string(local) == name {
			return f
		}
	}
	return 0
}

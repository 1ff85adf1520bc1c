"""The service under load, with the bare engine as the rival and LitServe as the peer: `rankone bench serving`."""

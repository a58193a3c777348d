"""Token counts where no provider has counted them: estimates, model families, tokenizers."""

"""Language models: prompts, retrieved demonstrations, answers by likelihood, fine-tuning."""
